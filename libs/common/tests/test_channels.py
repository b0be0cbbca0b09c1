"""Channels spread calls, leave unhealthy servers alone and find restarted ones."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack

import grpc
import grpc.aio
import pytest

from atrium_common.channels import CLIENT_PING_MS, SERVER_MIN_PING_MS, open_channel, service_config
from atrium_common.domain import Usage
from atrium_common.errors import Unavailable
from atrium_common.server import start_server
from atrium_common.settings import ServiceSettings
from atrium_common.testing import CREDENTIAL, gateway_metadata
from atrium_common.testing.echo import SERVICE_NAME, UNARY_UNARY, EchoEngine, EchoServicer, call


def settings(port: int = 0) -> ServiceSettings:
    """Returns settings for a test's server."""
    return ServiceSettings(
        port=port, metrics_port=0, drain_seconds=0.2, service_credential=CREDENTIAL
    )


async def test_calls_go_round_and_avoid_a_server_that_is_not_serving() -> None:
    servicers = [EchoServicer(), EchoServicer()]
    async with AsyncExitStack() as stack:
        servers = []
        for servicer in servicers:
            server = await start_server(servicer, EchoEngine(), settings())
            stack.push_async_callback(server.stop)
            await server.wait_ready()
            servers.append(server)
        target = "ipv4:" + ",".join(f"127.0.0.1:{server.port}" for server in servers)
        channel = open_channel(target, health_service=SERVICE_NAME)
        stack.push_async_callback(channel.close, None)
        for _ in range(40):
            await call(channel, UNARY_UNARY, metadata=gateway_metadata())
            await asyncio.sleep(0.005)
        counts = Counter({i: s.started for i, s in enumerate(servicers)})
        assert min(counts.values()) >= 10
        servers[0].health.close()
        await asyncio.sleep(0.1)
        before = servicers[0].started
        for _ in range(20):
            await call(channel, UNARY_UNARY, metadata=gateway_metadata())
        assert servicers[0].started == before


async def test_a_restarted_server_is_found_again_within_seconds() -> None:
    server = await start_server(EchoServicer(), EchoEngine(), settings())
    await server.wait_ready()
    channel = open_channel(f"127.0.0.1:{server.port}", health_service=SERVICE_NAME)
    await call(channel, UNARY_UNARY, metadata=gateway_metadata())
    await server.stop()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, UNARY_UNARY, metadata=gateway_metadata())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    server = await start_server(EchoServicer(), EchoEngine(), settings(server.port))

    async def answered() -> None:
        while True:
            try:
                await call(channel, UNARY_UNARY, metadata=gateway_metadata())
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)
            else:
                return

    await asyncio.wait_for(answered(), 8)
    await channel.close(None)
    await server.stop()


async def test_a_call_refused_as_unavailable_is_tried_again() -> None:
    attempts = 0

    async def flaky(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise Unavailable("not yet")
        yield Usage(output_tokens=1)

    server = await start_server(EchoServicer(flaky), EchoEngine(), settings())
    channel = open_channel(f"127.0.0.1:{server.port}")
    await call(channel, UNARY_UNARY, metadata=gateway_metadata())
    assert attempts == 3
    await channel.close(None)
    await server.stop()


def test_clients_ping_no_faster_than_servers_allow() -> None:
    assert CLIENT_PING_MS > SERVER_MIN_PING_MS


def test_the_service_config_names_the_health_service() -> None:
    config = json.loads(service_config("atrium.llm.v1.TextGenerationService"))
    assert config["healthCheckConfig"] == {"serviceName": "atrium.llm.v1.TextGenerationService"}
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]
    assert "healthCheckConfig" not in json.loads(service_config(None))
