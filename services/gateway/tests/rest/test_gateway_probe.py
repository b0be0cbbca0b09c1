"""The probe of the gateway's container, asked of a real gateway."""

import asyncio
import sys

import pytest

from atrium_gateway import probe
from atrium_gateway.settings import GatewaySettings


async def asked(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Runs the probe as its command line would, without a process."""
    monkeypatch.setattr(sys, "argv", ["probe", *arguments])
    return await asyncio.to_thread(probe.main)


async def test_running_gateway_is_alive_and_ready(rest, monkeypatch):
    monkeypatch.setenv("ATRIUM_GATEWAY_HOST", "0.0.0.0")  # noqa: S104
    monkeypatch.setenv("ATRIUM_GATEWAY_PORT", rest.url.rpartition(":")[2])
    assert await asked(monkeypatch) == 0
    assert await asked(monkeypatch, "--ready") == 0


async def test_another_status_than_200_and_silence_are_one_line_each(monkeypatch, capsys):
    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(busy, "127.0.0.1", 0)
    target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert await asked(monkeypatch, "--target", target, "--ready") == 1
    assert capsys.readouterr().err == f"probe: {target}/health/ready answers 503\n"
    server.close()
    await server.wait_closed()
    assert await asked(monkeypatch, "--target", target) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"probe: {target} does not answer")
    assert said.count("\n") == 1


def test_port_is_the_settings():
    assert str(GatewaySettings.model_fields["port"].default) == probe.PORT
