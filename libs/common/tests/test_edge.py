"""What every RPC of every arity is promised by the edge, over real sockets."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator

import grpc
import grpc.aio
import pytest

from atrium.common.v1 import model_pb2, model_pb2_grpc
from atrium_common.channels import open_channel
from atrium_common.domain import Usage
from atrium_common.errors import AtriumError, InvalidArgument, MediaError, NotFound, Overloaded
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.testing import (
    CREDENTIAL,
    gateway_metadata,
    running_server,
    service_metadata,
    tenant_metadata,
)
from atrium_common.testing.echo import (
    METHODS,
    STREAM_STREAM,
    STREAM_UNARY,
    UNARY_STREAM,
    UNARY_UNARY,
    EchoEngine,
    EchoServicer,
    call,
    make_request,
)

every_arity = pytest.mark.parametrize("method", METHODS)


def _works(*usages: Usage, error: Exception | None = None):
    async def work(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
        async for _ in prompts:
            pass
        for usage in usages:
            yield usage
        if error is not None:
            raise error

    return work


async def _refusal(channel, method, **kwargs) -> tuple[AtriumError, grpc.aio.AioRpcError]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, method, **kwargs)
    return from_rpc_error(caught.value), caught.value


@every_arity
async def test_answers_a_call_of_the_gateway(method: str) -> None:
    servicer = EchoServicer()
    async with running_server(servicer, EchoEngine()) as (channel, _):
        responses = await call(channel, method, metadata=gateway_metadata(weight=3.0))
    assert responses[-1].usage.output_tokens == 1
    context = servicer.contexts[0]
    assert (context.tenant, context.request_id, context.weight) == ("acme", "request-1", 3.0)
    assert context.reservation_id == "reservation-1"


async def test_streams_both_ways_keep_every_message() -> None:
    async with running_server(EchoServicer(), EchoEngine()) as (channel, _):
        responses = await call(channel, STREAM_STREAM, list("abcdef"), metadata=gateway_metadata())
    assert [r.usage.output_tokens for r in responses] == [1, 2, 3, 4, 5, 6]


BAD_CREDENTIALS = (
    ((), "UNAUTHENTICATED"),
    ((("x-atrium-service", "wrong-credential-x"),), "UNAUTHENTICATED"),
    ((("x-atrium-service", ""),), "UNAUTHENTICATED"),
    ((("authorization", "Basic Zm9v"),), "UNAUTHENTICATED"),
    ((("authorization", "Bearer "),), "UNAUTHENTICATED"),
    ((("authorization", "Bearer t"), ("x-atrium-tenant", "a")), "PERMISSION_DENIED"),
    ((("authorization", "Bearer t"), ("x-atrium-reservation", "r")), "PERMISSION_DENIED"),
    ((("authorization", "Bearer t"), ("x-atrium-weight", "9")), "PERMISSION_DENIED"),
    ((("x-atrium-service", CREDENTIAL), ("x-atrium-weight", "nan")), "INVALID_ARGUMENT"),
    ((("x-atrium-service", CREDENTIAL), ("x-atrium-weight", "-1")), "INVALID_ARGUMENT"),
    ((("x-atrium-service", CREDENTIAL), ("x-atrium-reservation", "r")), "INVALID_ARGUMENT"),
)


@every_arity
async def test_refuses_a_bad_credential(method: str) -> None:
    servicer = EchoServicer()
    async with running_server(servicer, EchoEngine()) as (channel, _):
        for metadata, reason in BAD_CREDENTIALS:
            error, _raw = await _refusal(channel, method, metadata=metadata)
            assert (metadata, error.reason) == (metadata, reason)
    assert servicer.started == 0


@every_arity
async def test_an_unexpected_error_leaves_a_reference_and_no_trace_of_itself(
    method: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    servicer = EchoServicer(_works(error=RuntimeError("the password is swordfish")))
    async with running_server(servicer, EchoEngine()) as (channel, _):
        error, raw = await _refusal(channel, method, metadata=gateway_metadata())
    assert raw.code() is grpc.StatusCode.INTERNAL
    assert "swordfish" not in f"{raw.details()} {raw.trailing_metadata()}"
    reference = error.metadata["reference"]
    assert reference in error.message
    logged = capsys.readouterr()
    assert reference in logged.out + logged.err


@every_arity
async def test_an_error_of_the_tree_reaches_the_caller_whole(method: str) -> None:
    servicer = EchoServicer(_works(error=InvalidArgument("Too hot.", field="sampling.temperature")))
    async with running_server(servicer, EchoEngine()) as (channel, _):
        error, raw = await _refusal(channel, method, metadata=gateway_metadata())
    assert raw.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert isinstance(error, InvalidArgument)
    assert (error.message, error.field) == ("Too hot.", "sampling.temperature")


async def test_an_error_after_output_follows_the_output() -> None:
    servicer = EchoServicer(_works(Usage(output_tokens=1), error=NotFound("gone")))
    received = []
    async with running_server(servicer, EchoEngine()) as (channel, _):
        stub = channel.unary_stream(
            UNARY_STREAM, type(make_request("")).SerializeToString, lambda data: data
        )

        async def read() -> None:
            async for message in stub(make_request("x"), metadata=gateway_metadata()):
                received.append(message)

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read()
    assert len(received) == 1
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@every_arity
async def test_bytes_that_are_no_message_are_the_callers_mistake(method: str) -> None:
    servicer = EchoServicer()
    async with running_server(servicer, EchoEngine()) as (channel, _):
        sent = b"\xff\xff\xff"

        async def many() -> AsyncIterator[bytes]:
            yield sent

        async def send() -> None:
            if method == UNARY_UNARY:
                await channel.unary_unary(method)(sent, metadata=gateway_metadata())
            elif method == UNARY_STREAM:
                async for _ in channel.unary_stream(method)(sent, metadata=gateway_metadata()):
                    pass
            elif method == STREAM_STREAM:
                async for _ in channel.stream_stream(method)(many(), metadata=gateway_metadata()):
                    pass
            else:
                await channel.stream_unary(method)(many(), metadata=gateway_metadata())

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "protobuf" in (caught.value.details() or "")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("mine-1", True), ("x" * 128, True), ("x" * 129, False), ("has space", False), ("", False)],
)
async def test_replies_carry_a_request_id(sent: str, kept: bool) -> None:
    async with running_server(EchoServicer(), EchoEngine()) as (channel, _):
        run = channel.unary_unary(UNARY_UNARY)(
            make_request("x").SerializeToString(),
            metadata=(*service_metadata(tenant="acme"), ("x-request-id", sent)),
        )
        await run
        reply = dict(await run.initial_metadata())["x-request-id"]
    assert reply
    assert (reply == sent) is kept


async def test_the_deadline_reaches_the_handler() -> None:
    servicer = EchoServicer()
    async with running_server(servicer, EchoEngine()) as (channel, _):
        await call(channel, UNARY_UNARY, metadata=gateway_metadata(), timeout=30)
        await call(channel, UNARY_UNARY, metadata=gateway_metadata(), timeout=None)
    first, second = (context.deadline for context in servicer.contexts)
    assert first is not None
    assert 25 < first - time.monotonic() < 30
    assert second is None


@every_arity
async def test_the_default_deadline_ends_a_call_that_brought_none(method: str) -> None:
    async def forever(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
        await asyncio.sleep(60)
        yield Usage()

    servicer = EchoServicer(forever)
    async with running_server(servicer, EchoEngine(), default_deadline_seconds=0.1) as (channel, _):
        error, raw = await _refusal(channel, method, metadata=gateway_metadata(), timeout=None)
    assert raw.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert error.reason == "DEADLINE_EXCEEDED"
    assert servicer.stopped == 1


@pytest.mark.parametrize("moment", [0.0, 0.001, 0.01, 0.05])
async def test_a_caller_that_leaves_stops_the_work_at_once(moment: float) -> None:
    async def endless(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
        while True:
            yield Usage(output_tokens=1)
            await asyncio.sleep(0.002)

    servicer = EchoServicer(endless)
    async with running_server(servicer, EchoEngine()) as (channel, _):
        for _round in range(20):
            stream = channel.unary_stream(UNARY_STREAM)(
                make_request("x").SerializeToString(), metadata=gateway_metadata()
            )
            await asyncio.sleep(moment)
            stream.cancel()
        await asyncio.sleep(0.05)
        assert servicer.stopped == servicer.started


async def test_a_caller_that_does_not_read_stops_too() -> None:
    """The work is blocked in a write, outside of its generator, when the caller leaves."""

    async def flood(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
        while True:
            yield Usage(model="x" * 50_000)

    servicer = EchoServicer(flood)
    async with running_server(servicer, EchoEngine()) as (channel, _):
        stream = channel.unary_stream(UNARY_STREAM)(
            make_request("x").SerializeToString(), metadata=gateway_metadata()
        )
        await stream.read()
        await asyncio.sleep(0.1)
        stream.cancel()
        await asyncio.sleep(0.05)
        assert (servicer.started, servicer.stopped) == (1, 1)


async def test_refuses_over_the_cap_and_health_still_answers() -> None:
    release = asyncio.Event()

    async def wait(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
        await release.wait()
        yield Usage(output_tokens=1)

    servicer = EchoServicer(wait)
    async with running_server(servicer, EchoEngine(), max_concurrent_rpcs=4) as (channel, _):
        running = [
            asyncio.create_task(call(channel, UNARY_UNARY, metadata=gateway_metadata()))
            for _ in range(4)
        ]
        async with asyncio.timeout(5):
            while servicer.started < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        error, _raw = await _refusal(channel, UNARY_UNARY, metadata=gateway_metadata())
        health = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert await health(b"", timeout=1) == b"\x08\x01"
        release.set()
        await asyncio.gather(*running)
        await call(channel, UNARY_UNARY, metadata=gateway_metadata())
    assert isinstance(error, Overloaded)
    assert error.retry_after is not None


async def test_a_message_over_the_limit_is_too_large() -> None:
    async with running_server(EchoServicer(), EchoEngine(), max_message_bytes=65536) as (
        channel,
        _,
    ):
        error, _raw = await _refusal(
            channel, UNARY_UNARY, prompts=["x" * 70_000], metadata=gateway_metadata()
        )
    assert error.reason == "TOO_LARGE"


async def test_operators_methods_refuse_tenants() -> None:
    async with running_server(EchoServicer(), EchoEngine()) as (channel, _):
        stub = model_pb2_grpc.ModelServiceStub(channel)
        request = model_pb2.LoadModelRequest(model="echo")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.LoadModel(request, metadata=tenant_metadata())
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        reply = await stub.LoadModel(request, metadata=service_metadata())
    assert reply.model.state == model_pb2.MODEL_STATE_READY


async def test_without_a_service_credential_nobody_is_trusted() -> None:
    async with running_server(EchoServicer(), EchoEngine(), service_credential=None) as (
        channel,
        _,
    ):
        error, _raw = await _refusal(channel, UNARY_UNARY, metadata=gateway_metadata())
    assert error.reason == "UNAUTHENTICATED"


@pytest.mark.parametrize("method", [STREAM_UNARY, STREAM_STREAM])
@pytest.mark.parametrize("tenant", [True, False])
async def test_an_upload_that_is_refused_early_hears_why(method: str, tenant: bool) -> None:
    """grpc.aio reports INTERNAL if the status comes while it writes: the edge reads on."""

    async def refuse(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
        raise MediaError("This is no audio.")
        yield Usage()

    metadata = tenant_metadata() if tenant else gateway_metadata()
    async with running_server(EchoServicer(refuse), EchoEngine()) as (channel, _):
        for _round in range(5):
            refusals = await asyncio.gather(
                *(
                    _refusal(channel, method, prompts=["x" * 60_000] * 40, metadata=metadata)
                    for _ in range(8)
                )
            )
            reasons = {error.reason for error, _raw in refusals}
            assert reasons == {"UNAVAILABLE" if tenant else "INVALID_MEDIA"}


async def test_an_unknown_method_is_unimplemented() -> None:
    async with running_server(EchoServicer(), EchoEngine()) as (channel, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/atrium.testing.v1.EchoService/Nope")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_dead_port_is_unavailable_without_naming_it() -> None:
    channel = open_channel("127.0.0.1:1")
    error, _raw = await _refusal(channel, UNARY_UNARY, metadata=gateway_metadata())
    await channel.close(None)
    assert error.reason == "UNAVAILABLE"
    assert "127.0.0.1" not in error.message
