"""What a call with one answer has consumed is told to the gateway that did not receive it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import grpc
import grpc.aio
import pytest

from atrium.common.v1 import usage_pb2, usage_pb2_grpc
from atrium_common.domain import Usage
from atrium_common.interceptors.accounts import Accounts
from atrium_common.metrics import make_metrics
from atrium_common.testing import (
    gateway_metadata,
    running_server,
    service_metadata,
    tenant_metadata,
)
from atrium_common.testing.echo import (
    STREAM_UNARY,
    UNARY_STREAM,
    UNARY_UNARY,
    EchoEngine,
    EchoServicer,
    Work,
    call,
)

single_answers = pytest.mark.parametrize("method", [UNARY_UNARY, STREAM_UNARY])


def held(reached: asyncio.Event, *, ending: float = 0.0) -> Work:
    """Makes work that produces seven tokens, then nothing until its caller leaves."""

    async def work(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
        async for _ in prompts:
            pass
        yield Usage(model="echo", input_tokens=3, output_tokens=5)
        yield Usage(model="echo", input_tokens=3, output_tokens=7)
        reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(ending)  # the step that runs is finished first

    return work


async def told(
    channel: grpc.aio.Channel, reservation: str = "reservation-1", *, metadata=None
) -> usage_pb2.GetUsageResponse:
    """Asks as the gateway does."""
    stub = usage_pb2_grpc.UsageServiceStub(channel)
    return await stub.GetUsage(
        usage_pb2.GetUsageRequest(reservation_id=reservation),
        metadata=metadata or service_metadata(),
        timeout=10,
    )


async def refused(channel: grpc.aio.Channel, *asked: str, metadata=None) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await told(channel, *asked, metadata=metadata)
    return caught.value.code()


@single_answers
async def test_a_call_that_was_cancelled_tells_what_it_did_once_it_has_ended(method: str) -> None:
    reached = asyncio.Event()
    servicer, metrics = EchoServicer(held(reached, ending=0.1)), make_metrics()
    async with running_server(servicer, EchoEngine(), metrics=metrics) as (channel, _):
        calling = asyncio.ensure_future(call(channel, method, metadata=gateway_metadata()))
        await reached.wait()
        calling.cancel()
        answer = await told(channel)
        assert servicer.stopped == 1
    assert (answer.consumed.input_tokens, answer.consumed.output_tokens) == (3, 7)
    # Work that was done is counted once, whether its answer arrives or not.
    labels = {"model": "echo", "unit": "output_tokens"}
    assert metrics.registry.get_sample_value("atrium_usage_units_total", labels) == 7


@single_answers
async def test_an_answer_that_was_lost_on_the_way_is_told_again(method: str) -> None:
    servicer = EchoServicer()
    servicer.by_model = lambda usage: (usage, Usage(model="other", pages=2))
    async with running_server(servicer, EchoEngine()) as (channel, _):
        await call(channel, method, metadata=gateway_metadata())
        answer = await told(channel)
    assert answer.consumed.output_tokens == 1
    assert [part.model for part in answer.consumed_by_model] == ["echo", "other"]


async def test_one_that_ended_before_any_work_has_consumed_nothing() -> None:
    started = asyncio.Event()

    async def waiting(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
        started.set()
        await asyncio.Event().wait()
        yield Usage()

    async with running_server(EchoServicer(waiting), EchoEngine()) as (channel, _):
        calling = asyncio.ensure_future(call(channel, UNARY_UNARY, metadata=gateway_metadata()))
        await started.wait()
        calling.cancel()
        answer = await told(channel)
    assert not answer.HasField("consumed")


async def test_only_the_suite_may_ask_and_only_for_calls_with_one_answer() -> None:
    async with running_server(EchoServicer(), EchoEngine()) as (channel, _):
        await call(channel, UNARY_STREAM, metadata=gateway_metadata())
        assert await refused(channel) is grpc.StatusCode.NOT_FOUND
        assert await refused(channel, "") is grpc.StatusCode.INVALID_ARGUMENT
        by_tenant = await refused(channel, metadata=tenant_metadata())
        assert by_tenant is grpc.StatusCode.PERMISSION_DENIED


def test_the_oldest_are_forgotten() -> None:
    accounts = Accounts(remembered=2)
    first, second = accounts.open("a"), accounts.open("b")
    again = accounts.open("a")
    third = accounts.open("c")
    assert accounts.find("a") is again is not first
    assert accounts.find("c") is third
    assert accounts.find("b") is None is not second
