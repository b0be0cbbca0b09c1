"""A service's life: live at once, ready when loaded, verified, drained, secured."""

import asyncio
import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from atrium.common.v1 import model_pb2, model_pb2_grpc
from atrium_common.channels import open_channel
from atrium_common.domain import ModelState, Usage
from atrium_common.errors import Unavailable
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.server import RunningServer, start_server
from atrium_common.settings import ServiceSettings
from atrium_common.testing import CREDENTIAL, gateway_metadata, running_server, service_metadata
from atrium_common.testing.certificates import write_certificates
from atrium_common.testing.echo import (
    SERVICE_NAME,
    UNARY_STREAM,
    UNARY_UNARY,
    EchoEngine,
    EchoServicer,
    call,
)
from atrium_common.tls import ClientTls
from atrium_common.work import WorkQueue

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def settings(**values: object) -> ServiceSettings:
    """Returns settings for a test's server."""
    given = {"port": 0, "metrics_port": 0, "drain_seconds": 1.0, "service_credential": CREDENTIAL}
    return ServiceSettings(**(given | values))


async def get(server: RunningServer, path: str) -> tuple[int, str]:
    """Fetches a probe."""

    def fetch() -> tuple[int, str]:
        url = f"http://127.0.0.1:{server.metrics_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(fetch)


async def check(channel: grpc.aio.Channel, name: str) -> int:
    """Asks for a name's health."""
    stub = health_pb2_grpc.HealthStub(channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)).status


async def test_is_live_at_once_and_ready_when_loaded() -> None:
    engine = EchoEngine()
    engine.gate.clear()
    server = await start_server(EchoServicer(), engine, settings())
    channel = open_channel(f"127.0.0.1:{server.port}")
    names = ("", SERVICE_NAME, "atrium.common.v1.ModelService")
    assert [await check(channel, name) for name in names] == [NOT_SERVING] * 3
    assert (await get(server, "/health/live"))[0] == 200
    assert (await get(server, "/health/ready"))[0] == 503
    engine.gate.set()
    await server.wait_verified()
    assert [await check(channel, name) for name in (*names, "model:echo")] == [SERVING] * 4
    status, body = await get(server, "/health/ready")
    assert status == 200
    assert json.loads(body)["models"] == [{"id": "echo", "state": "ready", "verified": True}]
    await channel.close(None)
    await server.stop()
    assert engine.is_closed


async def test_health_of_an_unknown_name_is_not_found() -> None:
    async with running_server(EchoServicer(), EchoEngine()) as (channel, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(channel, "nope")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_every_watcher_hears_every_change() -> None:
    server = await start_server(EchoServicer(), EchoEngine(), settings())
    await server.wait_ready()
    channel = open_channel(f"127.0.0.1:{server.port}")
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service="toy")
    watchers = [stub.Watch(request) for _ in range(3)]
    unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    assert [(await w.read()).status for w in watchers] == [unknown] * 3
    watchers[0].cancel()
    for serving in (True, False, True):
        server.health.set("toy", serving=serving)
        told = [(await asyncio.wait_for(w.read(), 2)).status for w in watchers[1:]]
        assert told == [SERVING if serving else NOT_SERVING] * 2
    stopping = asyncio.create_task(server.stop())
    assert [(await w.read()).status for w in watchers[1:]] == [NOT_SERVING] * 2
    # An open watch must not hold up the drain.
    await asyncio.wait_for(stopping, 3)
    await channel.close(None)


async def test_a_model_that_fails_verification_is_failed_and_said_so() -> None:
    engine = EchoEngine()
    engine.verify_error = RuntimeError("nan in the logits of /secret/path")
    server = await start_server(EchoServicer(), engine, settings())
    channel = open_channel(f"127.0.0.1:{server.port}")
    stub = model_pb2_grpc.ModelServiceStub(channel)

    async def listed() -> model_pb2.Model:
        reply = await stub.ListModels(
            model_pb2.ListModelsRequest(), metadata=service_metadata(), timeout=5
        )
        return reply.models[0]

    async with asyncio.timeout(5):
        while (await listed()).state != model_pb2.MODEL_STATE_FAILED:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    model = await listed()
    assert model.detail == "verification failed: RuntimeError"
    async with asyncio.timeout(5):
        while await check(channel, "model:echo") != NOT_SERVING:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await channel.close(None)
    await server.stop()


async def test_an_engine_that_does_not_load_is_told_and_never_ready() -> None:
    engine = EchoEngine()
    engine.load_error = FileNotFoundError("weights")
    server = await start_server(EchoServicer(), engine, settings())
    with pytest.raises(FileNotFoundError):
        await server.wait_ready()
    assert (await get(server, "/health/live"))[0] == 200
    assert (await get(server, "/health/ready"))[0] == 503
    await server.stop()
    assert engine.is_closed


async def test_lists_models_and_refuses_by_name_what_the_engine_lacks() -> None:
    engine = EchoEngine()
    async with running_server(EchoServicer(), engine) as (channel, _):
        stub = model_pb2_grpc.ModelServiceStub(channel)
        reply = await stub.ListModels(model_pb2.ListModelsRequest(), metadata=service_metadata())
        assert [(m.id, list(m.aliases), m.state) for m in reply.models] == [
            ("echo", ["parrot"], model_pb2.MODEL_STATE_READY)
        ]
        for request, code in (
            (model_pb2.UnloadModelRequest(model="parrot"), grpc.StatusCode.UNIMPLEMENTED),
            (model_pb2.UnloadModelRequest(model="nope"), grpc.StatusCode.NOT_FOUND),
            (model_pb2.UnloadModelRequest(), grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.UnloadModel(request, metadata=service_metadata())
            assert caught.value.code() is code


async def test_loads_and_unloads_where_the_engine_can() -> None:
    class Movable(EchoEngine):
        async def load_model(self, model: str) -> None:
            self.state = ModelState.READY

        async def unload_model(self, model: str) -> None:
            self.state = ModelState.UNLOADED

    engine = Movable()
    async with running_server(EchoServicer(), engine) as (channel, _):
        stub = model_pb2_grpc.ModelServiceStub(channel)
        gone = await stub.UnloadModel(
            model_pb2.UnloadModelRequest(model="parrot"), metadata=service_metadata()
        )
        assert gone.model.state == model_pb2.MODEL_STATE_UNLOADED
        back = await stub.LoadModel(
            model_pb2.LoadModelRequest(model="parrot"), metadata=service_metadata()
        )
    assert back.model.state == model_pb2.MODEL_STATE_READY
    assert back.model.HasField("verify_time")


async def test_reflection_lists_the_services() -> None:
    async with running_server(EchoServicer(), EchoEngine()) as (channel, _):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        stream = stub.ServerReflectionInfo()
        await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        reply = await stream.read()
        await stream.write(
            reflection_pb2.ServerReflectionRequest(
                file_containing_symbol="atrium.common.v1.ModelService"
            )
        )
        described = await stream.read()
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
    names = {service.name for service in reply.list_services_response.service}
    assert {SERVICE_NAME, "atrium.common.v1.ModelService", "grpc.health.v1.Health"} <= names
    assert described.file_descriptor_response.file_descriptor_proto


def _slowly(seconds: float, started: asyncio.Event):
    async def work(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
        yield Usage(output_tokens=1)
        started.set()
        await asyncio.sleep(seconds)
        yield Usage(output_tokens=2)

    return work


async def test_a_drain_lets_running_calls_finish() -> None:
    started = asyncio.Event()
    server = await start_server(
        EchoServicer(_slowly(0.3, started)), EchoEngine(), settings(drain_seconds=5)
    )
    channel = open_channel(f"127.0.0.1:{server.port}")
    running = asyncio.create_task(call(channel, UNARY_STREAM, metadata=gateway_metadata()))
    await started.wait()
    stopping = asyncio.create_task(server.stop())
    responses = await running
    assert [r.usage.output_tokens for r in responses] == [1, 2]
    # Stopped when the call had ended, not when its time was up.
    await asyncio.wait_for(stopping, 2)
    await channel.close(None)


async def test_a_drain_tells_calls_that_do_not_finish_to_try_elsewhere() -> None:
    started = asyncio.Event()
    servicer = EchoServicer(_slowly(60, started))
    server = await start_server(servicer, EchoEngine(), settings(drain_seconds=0.2))
    channel = open_channel(f"127.0.0.1:{server.port}")
    running = asyncio.create_task(call(channel, UNARY_STREAM, metadata=gateway_metadata()))
    await started.wait()
    await asyncio.wait_for(server.stop(), 3)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running
    error = from_rpc_error(caught.value)
    assert isinstance(error, Unavailable)
    assert error.retry_after == timedelta(seconds=1)
    assert servicer.stopped == 1
    await channel.close(None)


async def test_a_taken_port_is_one_clear_error() -> None:
    server = await start_server(EchoServicer(), EchoEngine(), settings())
    with pytest.raises(OSError, match="in use"):
        await start_server(EchoServicer(), EchoEngine(), settings(port=server.port))
    with pytest.raises(OSError, match="in use"):
        await start_server(EchoServicer(), EchoEngine(), settings(metrics_port=server.metrics_port))
    await server.stop()


async def test_metrics_count_calls_units_queues_and_models() -> None:
    servicer = EchoServicer()
    servicer.queues = {"fake": WorkQueue(slots=1, max_queue=1)}
    server = await start_server(servicer, EchoEngine(), settings())
    await server.wait_verified()
    channel = open_channel(f"127.0.0.1:{server.port}")
    await call(channel, UNARY_UNARY, metadata=gateway_metadata())
    with pytest.raises(grpc.aio.AioRpcError):
        await call(channel, UNARY_UNARY)
    status, text = await get(server, "/metrics")
    assert status == 200
    method = f'method="{UNARY_UNARY}"'
    for line in (
        f'atrium_rpc_requests_total{{code="OK",{method}}} 1.0',
        f'atrium_rpc_requests_total{{code="UNAUTHENTICATED",{method}}} 1.0',
        f"atrium_rpc_running{{{method}}} 0.0",
        f"atrium_rpc_seconds_count{{{method}}} 2.0",
        'atrium_usage_units_total{model="echo",unit="output_tokens"} 1.0',
        'atrium_queue_depth{queue="fake"} 0.0',
        'atrium_model_state{model="echo",state="ready"} 1.0',
        'atrium_model_verified{model="echo"} 1.0',
    ):
        assert line in text
    assert "acme" not in text
    assert (await get(server, "/nope"))[0] == 404
    await channel.close(None)
    await server.stop()


async def test_mutual_tls_refuses_a_client_without_a_certificate(tmp_path: Path) -> None:
    write_certificates(tmp_path)
    stranger = ClientTls(ca=tmp_path / "ca.pem", server_name="localhost")
    friend = ClientTls(
        ca=tmp_path / "ca.pem",
        certificate=tmp_path / "client.pem",
        key=tmp_path / "client.key",
        server_name="localhost",
    )
    async with running_server(
        EchoServicer(),
        EchoEngine(),
        tls=friend,
        tls_certificate=tmp_path / "server.pem",
        tls_key=tmp_path / "server.key",
        tls_client_ca=tmp_path / "ca.pem",
    ) as (channel, port):
        await call(channel, UNARY_UNARY, metadata=gateway_metadata())
        for tls in (stranger, None):
            other = open_channel(f"127.0.0.1:{port}", tls=tls)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(other, UNARY_UNARY, metadata=gateway_metadata(), timeout=3)
            assert caught.value.code() in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.DEADLINE_EXCEEDED,
            )
            await other.close(None)


async def test_tls_serves_clients_that_trust_its_ca(tmp_path: Path) -> None:
    write_certificates(tmp_path)
    async with running_server(
        EchoServicer(),
        EchoEngine(),
        tls=ClientTls(ca=tmp_path / "ca.pem", server_name="localhost"),
        tls_certificate=tmp_path / "server.pem",
        tls_key=tmp_path / "server.key",
    ) as (channel, _):
        assert await call(channel, UNARY_UNARY, metadata=gateway_metadata())


PROGRAM = """
from atrium_common.logs import configure_logging
from atrium_common.process import run_service
from atrium_common.server import serve
from atrium_common.settings import ServiceSettings
from atrium_common.testing.echo import EchoEngine, EchoServicer

class Engine(EchoEngine):
    async def close(self):
        print("closed", flush=True)

configure_logging("echo", "info", "json")
run_service(serve(EchoServicer(), Engine(), ServiceSettings(port=%d, metrics_port=0)))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends_the_process(number: signal.Signals) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-c",
        PROGRAM % port,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    )
    channel = open_channel(f"127.0.0.1:{port}")
    stream = channel.unary_unary("/grpc.health.v1.Health/Check")
    async with asyncio.timeout(20):
        while True:
            try:
                if await stream(b"", wait_for_ready=True) == b"\x08\x01":
                    break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
    process.send_signal(number)
    out, err = await asyncio.wait_for(process.communicate(), 10)
    await channel.close(None)
    assert process.returncode == 0, err.decode()
    assert out == b"closed\n"
    events = [json.loads(line)["event"] for line in err.decode().splitlines()]
    assert events[0] == "listening"
    assert events[-2:] == ["draining", "stopped"]
