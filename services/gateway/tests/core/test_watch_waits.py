"""A service that is away is waited for by one call: each that failed would leak in grpc."""

import asyncio
import socket

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from atrium_gateway.upstreams import health
from atrium_gateway.upstreams.calls import Credentials
from atrium_gateway.upstreams.health import ServiceWatch

_SERVICE = "atrium.test.v1.Absent"


class _Counting(grpc.aio.UnaryStreamClientInterceptor):
    """Counts the calls of a channel."""

    def __init__(self) -> None:
        self.calls = 0

    async def intercept_unary_stream(self, continuation, client_call_details, request):
        self.calls += 1
        return await continuation(client_call_details, request)


async def test_one_call_waits_for_a_service_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "RETRY_SECONDS", 0.0)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{held.getsockname()[1]}"
    counting = _Counting()
    options = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 100))
    async with (
        grpc.aio.insecure_channel(target, options=options) as calls,
        grpc.aio.insecure_channel(target, options=options, interceptors=[counting]) as plain,
    ):
        watch = ServiceWatch("x", _SERVICE, calls=calls, plain=plain, credentials=Credentials("s"))
        watch.start()
        async with asyncio.timeout(20):
            while (state := calls.get_state()) is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                await calls.wait_for_state_change(state)
            await asyncio.sleep(0.1)  # what would be called over and over is called now
            assert not watch.health.reachable
            server, servicer = grpc.aio.server(), aio.HealthServicer()
            await servicer.set(_SERVICE, health_pb2.HealthCheckResponse.SERVING)
            add_HealthServicer_to_server(servicer, server)
            server.add_insecure_port(target)
            await server.start()
            while True:
                if watch.health.reachable:
                    break
                await asyncio.sleep(0.01)
        await watch.close()
        await server.stop(None)
    assert counting.calls == 1
