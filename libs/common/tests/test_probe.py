"""The probe of a service's container: what it says of a real server, and how fast it starts."""

import asyncio
import importlib
import os
import sys
from pathlib import Path

import pytest

from atrium_common import probe
from atrium_common.server import RunningServer, start_server
from atrium_common.settings import SHARED_PREFIX, ServiceSettings
from atrium_common.testing import CREDENTIAL
from atrium_common.testing.certificates import write_certificates
from atrium_common.testing.echo import EchoEngine, EchoServicer


async def started(engine: EchoEngine, **values: object) -> RunningServer:
    """Starts a server on a free port."""
    given = {"port": 0, "metrics_port": 0, "drain_seconds": 1.0, "service_credential": CREDENTIAL}
    return await start_server(EchoServicer(), engine, ServiceSettings(**(given | values)))


async def asked(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Runs the probe as its command line would, without a process."""
    monkeypatch.setattr(sys, "argv", ["probe", *arguments])
    return await asyncio.to_thread(probe.main)


async def test_program_asks_the_port_of_the_services_variables() -> None:
    server = await started(EchoEngine())
    await server.loading
    variables = {"ATRIUM_SERVICE": "llm", "ATRIUM_LLM_HOST": "0.0.0.0"}  # noqa: S104
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "atrium_common.probe", "--ready"),
        env=os.environ | variables | {"ATRIUM_LLM_PORT": str(server.port)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert await process.communicate() == (b"", b"")
    assert process.returncode == 0
    await server.stop()


async def test_loading_service_is_alive_and_not_ready(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = EchoEngine()
    engine.gate.clear()
    server = await started(engine)
    target = f"127.0.0.1:{server.port}"
    assert await asked(monkeypatch, "--target", target) == 0
    assert await asked(monkeypatch, "--target", target, "--ready") == 1
    assert capsys.readouterr().err == f"probe: {target} is not ready\n"
    engine.gate.set()
    await server.loading
    assert await asked(monkeypatch, "--target", target, "--ready") == 0
    await server.stop()
    assert await asked(monkeypatch, "--target", target, "--seconds", "1") == 1
    said = capsys.readouterr().err
    assert said.startswith(f"probe: {target} does not answer")
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["stt", "*.suite.example"])
@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mtls"])
async def test_the_services_own_certificate_is_trusted_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mutual: bool
) -> None:
    write_certificates(tmp_path, server_name=name)
    files = {"tls_certificate": tmp_path / "server.pem", "tls_key": tmp_path / "server.key"}
    server = await started(
        EchoEngine(), **files, tls_client_ca=tmp_path / "ca.pem" if mutual else None
    )
    await server.loading
    monkeypatch.setenv("ATRIUM_SERVICE", "stt")
    monkeypatch.setenv("ATRIUM_STT_PORT", str(server.port))
    for field, path in files.items():
        monkeypatch.setenv(f"ATRIUM_{field.upper()}", str(path))
    assert await asked(monkeypatch, "--ready") == 0
    await server.stop()


async def test_another_servers_certificate_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for side in ("served", "expected"):
        (tmp_path / side).mkdir()
        write_certificates(tmp_path / side)
    served = tmp_path / "served"
    server = await started(
        EchoEngine(), tls_certificate=served / "server.pem", tls_key=served / "server.key"
    )
    monkeypatch.setenv("ATRIUM_SERVICE", "llm")
    monkeypatch.setenv("ATRIUM_LLM_TLS_CERTIFICATE", str(tmp_path / "expected/server.pem"))
    monkeypatch.setenv("ATRIUM_LLM_TLS_KEY", str(tmp_path / "expected/server.key"))
    assert await asked(monkeypatch, "--target", f"127.0.0.1:{server.port}") == 1
    assert "CERTIFICATE_VERIFY_FAILED" in capsys.readouterr().err
    await server.stop()


async def test_unknown_service_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATRIUM_SERVICE", "fortune")
    assert await asked(monkeypatch) == 1
    assert capsys.readouterr().err.startswith("probe: ATRIUM_SERVICE='fortune' is not one of ")


def test_ports_and_prefix_are_the_settings() -> None:
    from atrium_common import probing

    assert probing.SHARED_PREFIX == SHARED_PREFIX
    defaults = {}
    for service in probe.PORTS:
        module = importlib.import_module(f"atrium_{service}.settings")
        (kind,) = (
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, ServiceSettings)
            and value.model_config.get("env_prefix") == f"ATRIUM_{service.upper()}_"
        )
        defaults[service] = str(kind.model_fields["port"].default)
    assert defaults == probe.PORTS


async def test_probe_imports_no_settings_and_no_server() -> None:
    code = "import sys, atrium_common.probe; print(*sys.modules)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    loaded = set((await process.communicate())[0].decode().split())
    assert "grpc" in loaded
    heavy = {"pydantic", "pydantic_settings", "structlog", "google.protobuf", "prometheus_client"}
    assert not heavy & loaded
