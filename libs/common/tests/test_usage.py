"""What a tenant that speaks gRPC directly is charged, however its call ends."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import timedelta

import grpc
import grpc.aio
import pytest

from atrium.common.v1 import model_pb2, model_pb2_grpc
from atrium_common.domain import Usage
from atrium_common.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    PermissionDenied,
    QuotaExceeded,
    Unavailable,
)
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.testing import (
    FakeAdmission,
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
    Work,
    call,
    make_request,
)

every_arity = pytest.mark.parametrize("method", METHODS)
BOUND = Usage(model="echo", input_tokens=10, output_tokens=100)


def steps(
    count: int, *, pause: float = 0.0, error: Exception | None = None, first: float = 0.0
) -> Work:
    """Makes work of `count` output tokens, one message each."""

    async def work(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
        async for _ in prompts:
            pass
        await asyncio.sleep(first)
        for token in range(1, count + 1):
            yield Usage(model="echo", engine="fake", input_tokens=3, output_tokens=token)
            if pause:
                await asyncio.sleep(pause)
        if error is not None:
            raise error

    return work


async def refused(running) -> Exception:
    """Returns the error that a call ended with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running
    return from_rpc_error(caught.value)


async def until(condition: Callable[[], bool]) -> None:
    """Waits until a condition holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@every_arity
async def test_a_tenants_call_is_admitted_and_settled_once(method: str) -> None:
    servicer = EchoServicer(steps(5), bound=BOUND)
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        responses = await call(channel, method, metadata=tenant_metadata())
        booking = admission.last
        # The record is on disk before the caller has its answer.
        assert booking.outcome == "COMPLETED"
    assert booking.closings == 1
    assert booking.usage is not None
    assert booking.usage.output_tokens == responses[-1].usage.output_tokens == 5
    assert booking.request.method == method
    assert booking.request.capability == "chat"
    assert booking.request.model == "echo"
    assert booking.request.estimate.output_tokens == 100
    context = servicer.contexts[0]
    assert (context.tenant, context.subject, context.weight) == ("acme", "user-of-acme", 2.0)
    assert context.reservation_id == "reservation-1"
    assert booking.request.request_id == context.request_id


@every_arity
async def test_what_each_of_several_models_consumed_is_settled_with_the_sum(method: str) -> None:
    def halves(usage: Usage) -> list[Usage]:
        rest = usage.output_tokens - 1
        return [
            Usage(model="echo", input_tokens=3, output_tokens=1),
            Usage(model="parrot", output_tokens=rest),
        ]

    servicer = EchoServicer(steps(5), bound=BOUND)
    servicer.by_model = halves
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        await call(channel, method, metadata=tenant_metadata())
        booking = admission.last
    assert booking.usage is not None
    assert booking.usage.output_tokens == 5
    told = [(part.model, part.output_tokens) for part in booking.usage_by_model]
    assert told == [("echo", 1), ("parrot", 4)]


@every_arity
async def test_admission_is_told_where_a_tenants_call_comes_from(method: str) -> None:
    async with (
        FakeAdmission() as admission,
        running_server(EchoServicer(steps(1)), EchoEngine(), admission=admission) as (channel, _),
    ):
        metadata = (*tenant_metadata(), ("x-forwarded-for", "192.0.2.1, 10.0.0.1"))
        await call(channel, method, metadata=metadata)
    assert admission.last.request.peer_address in ("127.0.0.1", "::1")
    assert admission.last.request.forwarded_for == "192.0.2.1, 10.0.0.1"


async def test_a_trusted_caller_pays_for_the_tenant_it_names() -> None:
    servicer = EchoServicer(bound=BOUND)
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (
            channel,
            _,
        ),
    ):
        await call(channel, UNARY_UNARY, metadata=service_metadata(tenant="globex"))
        error = await refused(call(channel, UNARY_UNARY, metadata=service_metadata()))
    assert admission.last.tenant == "globex"
    assert isinstance(error, InvalidArgument)
    assert error.field == "x-atrium-tenant"


@every_arity
async def test_a_call_with_a_reservation_is_not_admitted_again(method: str) -> None:
    servicer = EchoServicer(bound=BOUND)
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (
            channel,
            _,
        ),
    ):
        await call(channel, method, metadata=gateway_metadata())
    assert not admission.bookings


@every_arity
@pytest.mark.parametrize(
    ("metadata", "kind"),
    [(tenant_metadata("forged"), "UNAUTHENTICATED"), (tenant_metadata(), "RATE_LIMITED")],
)
async def test_a_refused_call_does_no_work(method: str, metadata, kind: str) -> None:
    servicer = EchoServicer(bound=BOUND)
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        admission.request_limit = 0
        error = await refused(call(channel, method, metadata=metadata))
    assert error.reason == kind
    assert servicer.started == 0
    if isinstance(error, QuotaExceeded):
        assert error.violations[0].window == timedelta(hours=1)
        assert error.retry_after == timedelta(hours=1)


async def test_many_at_once_at_the_edge_of_a_limit() -> None:
    servicer = EchoServicer(steps(2, pause=0.01), bound=BOUND)
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        admission.request_limit = 7
        ended = await asyncio.gather(
            *(call(channel, UNARY_STREAM, metadata=tenant_metadata()) for _ in range(30)),
            return_exceptions=True,
        )
        await admission.closed(7)
    assert len([end for end in ended if isinstance(end, list)]) == 7
    assert servicer.started == 7
    assert len(admission.bookings) == 7


@every_arity
async def test_without_an_authority_no_work(method: str) -> None:
    servicer = EchoServicer(bound=BOUND)
    async with running_server(servicer, EchoEngine()) as (channel, _):
        error = await refused(call(channel, method, metadata=tenant_metadata()))
        trusted = await refused(call(channel, method, metadata=service_metadata(tenant="acme")))
    assert isinstance(error, Unavailable)
    assert isinstance(trusted, Unavailable)
    assert servicer.started == 0


async def test_an_authority_that_is_down_is_unavailable_and_found_again() -> None:
    servicer = EchoServicer(bound=BOUND)
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        await admission.stop()
        error = await refused(call(channel, UNARY_UNARY, metadata=tenant_metadata()))
        assert isinstance(error, Unavailable)
        await admission.start()

        async def admitted() -> None:
            while True:
                try:
                    await call(channel, UNARY_UNARY, metadata=tenant_metadata())
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.1)
                else:
                    return

        await asyncio.wait_for(admitted(), 10)


@every_arity
async def test_work_that_fails_before_any_usage_is_refunded(method: str) -> None:
    servicer = EchoServicer(steps(0, error=InvalidArgument("no")), bound=BOUND)
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        await refused(call(channel, method, metadata=tenant_metadata()))
        booking = admission.last
    assert (booking.outcome, booking.reason) == ("REFUNDED", "INVALID_ARGUMENT")
    assert booking.closings == 1


@every_arity
async def test_work_that_fails_later_is_charged_for_what_it_made(method: str) -> None:
    servicer = EchoServicer(steps(4, error=RuntimeError("boom")), bound=BOUND)
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        error = await refused(call(channel, method, metadata=tenant_metadata()))
        booking = admission.last
    assert isinstance(error, InternalError)
    assert booking.outcome == "FAILED"
    assert booking.usage is not None
    assert booking.usage.output_tokens == 4


@pytest.mark.parametrize("read", [0, 1, 3, 10])
@pytest.mark.parametrize("method", [UNARY_STREAM, STREAM_STREAM])
async def test_a_caller_that_leaves_is_charged_for_what_was_made(method: str, read: int) -> None:
    made: list[int] = []

    async def work(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
        for token in range(1, 10_000):
            made.append(token)
            yield Usage(model="echo", output_tokens=token)
            await asyncio.sleep(0.001)

    servicer = EchoServicer(work, bound=Usage(output_tokens=10_000))
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        request = make_request("x").SerializeToString()
        if method == UNARY_STREAM:
            stream = channel.unary_stream(method)(request, metadata=tenant_metadata())
        else:
            stream = channel.stream_stream(method)(metadata=tenant_metadata())
            await stream.write(request)
        if read == 0:
            await until(lambda: bool(made))
        for _ in range(read):
            await stream.read()
        stream.cancel()
        booking = (await admission.closed())[0]
        assert servicer.stopped == 1
    assert booking.outcome == "CANCELLED"
    assert booking.closings == 1
    assert booking.usage is not None
    assert booking.usage.output_tokens == made[-1] >= read


@pytest.mark.parametrize("method", [UNARY_UNARY, STREAM_UNARY])
async def test_a_unary_caller_that_leaves_is_charged_for_what_was_reported(method: str) -> None:
    servicer = EchoServicer(steps(1000, pause=0.002), bound=Usage(output_tokens=1000))
    servicer.by_model = lambda usage: [usage]
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        running = asyncio.create_task(call(channel, method, metadata=tenant_metadata()))
        await until(lambda: servicer.started == 1)
        await asyncio.sleep(0.05)
        running.cancel()
        booking = (await admission.closed())[0]
    assert booking.outcome == "CANCELLED"
    assert booking.usage is not None
    assert 1 <= booking.usage.output_tokens < 1000
    reported = [part.output_tokens for part in booking.usage_by_model]
    assert reported == [booking.usage.output_tokens]


async def test_a_caller_that_leaves_before_any_usage_is_refunded() -> None:
    servicer = EchoServicer(steps(1, first=30), bound=BOUND)
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        running = asyncio.create_task(call(channel, UNARY_STREAM, metadata=tenant_metadata()))
        await until(lambda: servicer.started == 1)
        running.cancel()
        booking = (await admission.closed())[0]
    assert (booking.outcome, booking.closings) == ("REFUNDED", 1)


async def test_a_caller_that_leaves_while_admission_thinks_is_refunded() -> None:
    servicer = EchoServicer(bound=BOUND)
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        admission.delay["Admit"] = 0.2
        running = asyncio.create_task(call(channel, UNARY_STREAM, metadata=tenant_metadata()))
        await asyncio.sleep(0.1)
        running.cancel()
        booking = (await admission.closed())[0]
    assert booking.outcome == "REFUNDED"
    assert servicer.started == 0


async def test_leaving_at_random_moments_never_leaks_or_doubles() -> None:
    servicer = EchoServicer(steps(20, pause=0.001), bound=BOUND)
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):

        async def leave_after(seconds: float) -> None:
            running = asyncio.create_task(call(channel, UNARY_STREAM, metadata=tenant_metadata()))
            await asyncio.sleep(seconds)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

        for batch in range(10):
            await asyncio.gather(*(leave_after(0.004 * n + 0.0003 * batch) for n in range(20)))
        await until(lambda: all(b.outcome for b in admission.bookings.values()))
        await until(lambda: servicer.started == servicer.stopped)
    for booking in admission.bookings.values():
        assert booking.closings == 1
        if booking.usage is not None:
            assert 0 < booking.usage.output_tokens <= 20


async def test_a_settlement_outlives_a_dying_authority() -> None:
    servicer = EchoServicer(steps(20, pause=0.01), bound=BOUND)
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        running = asyncio.create_task(call(channel, UNARY_STREAM, metadata=tenant_metadata()))
        await until(lambda: servicer.started == 1)
        await admission.stop()
        responses = await running
        assert len(responses) == 20
        assert admission.last.outcome is None
        await admission.start()
        booking = (await admission.closed(timeout=10))[0]
    assert booking.outcome == "COMPLETED"
    assert booking.usage is not None
    assert booking.usage.output_tokens == 20


async def test_a_settlement_whose_answer_is_lost_is_sent_again_and_counts_once() -> None:
    servicer = EchoServicer(steps(3), bound=BOUND)
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        admission.fail["Settle"] = DeadlineExceeded("slow disk")
        running = asyncio.create_task(call(channel, UNARY_STREAM, metadata=tenant_metadata()))
        await asyncio.sleep(0.2)
        del admission.fail["Settle"]
        await running
        assert (await admission.closed())[0].outcome == "COMPLETED"


async def test_a_long_call_renews_its_lease() -> None:
    servicer = EchoServicer(steps(1, first=1.5), bound=BOUND)
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        admission.lease = timedelta(seconds=0.9)
        await call(channel, UNARY_UNARY, metadata=tenant_metadata())
    # One each third of the lease; a busy machine may be late, never early.
    assert 2 <= admission.last.renewals <= 5
    assert admission.last.outcome == "COMPLETED"


async def test_a_lost_lease_stops_the_work() -> None:
    servicer = EchoServicer(steps(10_000, pause=0.01), bound=Usage(output_tokens=10_000))
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        admission.lease = timedelta(seconds=0.3)
        running = asyncio.create_task(call(channel, UNARY_STREAM, metadata=tenant_metadata()))
        await until(lambda: servicer.started == 1)
        admission.last.outcome = "EXPIRED"
        error = await refused(running)
        assert servicer.stopped == 1
    assert isinstance(error, Unavailable)


async def test_work_stops_when_the_authority_stays_away_past_the_lease() -> None:
    servicer = EchoServicer(steps(10_000, pause=0.01), bound=Usage(output_tokens=10_000))
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        admission.lease = timedelta(seconds=0.5)
        running = asyncio.create_task(call(channel, UNARY_STREAM, metadata=tenant_metadata()))
        await until(lambda: servicer.started == 1)
        admission.fail["Renew"] = Unavailable("restarting")
        error = await refused(running)
        assert servicer.stopped == 1
    assert isinstance(error, Unavailable)


async def test_a_tenant_blocked_meanwhile_is_stopped() -> None:
    servicer = EchoServicer(steps(10_000, pause=0.01), bound=Usage(output_tokens=10_000))
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        admission.lease = timedelta(seconds=0.3)
        running = asyncio.create_task(call(channel, UNARY_STREAM, metadata=tenant_metadata()))
        await until(lambda: servicer.started == 1)
        admission.fail["Renew"] = PermissionDenied("The tenant is blocked.")
        error = await refused(running)
        booking = (await admission.closed())[0]
    assert isinstance(error, PermissionDenied)
    assert booking.outcome == "FAILED"


async def test_a_reservation_grows_with_the_work() -> None:
    servicer = EchoServicer(steps(35), bound=Usage(input_tokens=3, output_tokens=10))
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        responses = await call(channel, UNARY_STREAM, metadata=tenant_metadata())
    assert len(responses) == 35
    assert admission.last.bound.output_tokens == 43  # 10, then 11 + 10, 22 + 10, 33 + 10
    assert admission.last.renewals == 3
    assert admission.last.outcome == "COMPLETED"


async def test_live_audio_reserves_a_minute_at_a_time() -> None:
    async def listen(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
        seconds = 0
        async for _ in prompts:
            seconds += 30
            yield Usage(model="echo", input_audio=timedelta(seconds=seconds))

    servicer = EchoServicer(listen, bound=Usage(input_audio=timedelta(seconds=60)))
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        await call(channel, STREAM_STREAM, ["x"] * 7, metadata=tenant_metadata())
    assert admission.last.bound.input_audio == timedelta(seconds=240)
    assert admission.last.usage is not None
    assert admission.last.usage.input_audio == timedelta(seconds=210)


async def test_growth_that_is_refused_ends_the_stream_and_charges_what_was_made() -> None:
    servicer = EchoServicer(steps(1000, pause=0.001), bound=Usage(input_tokens=3, output_tokens=10))
    received = []
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        admission.growth_limit = lambda bound: bound.output_tokens <= 25
        stream = channel.unary_stream(UNARY_STREAM)(
            make_request("x").SerializeToString(), metadata=tenant_metadata()
        )

        async def read() -> None:
            async for message in stream:
                received.append(message)

        error = await refused(read())
        booking = (await admission.closed())[0]
        assert servicer.stopped == 1
    assert isinstance(error, QuotaExceeded)
    assert booking.outcome == "FAILED"
    assert booking.usage is not None
    # All 25 that the limit allows, and the one that showed that it is reached.
    assert booking.usage.output_tokens == len(received) == 26


async def test_unmetered_calls_of_a_tenant_cost_nothing_but_need_a_good_token() -> None:
    servicer = EchoServicer(bound=None)
    async with (
        FakeAdmission() as admission,
        running_server(servicer, EchoEngine(), admission=admission) as (channel, _),
    ):
        stub = model_pb2_grpc.ModelServiceStub(channel)
        for _ in range(3):
            await stub.ListModels(model_pb2.ListModelsRequest(), metadata=tenant_metadata())
        await call(channel, UNARY_UNARY, metadata=tenant_metadata())
        bookings = await admission.closed()
        assert [booking.outcome for booking in bookings] == ["REFUNDED"]
        assert servicer.contexts[0].tenant == "acme"
        error = await refused(call(channel, UNARY_UNARY, metadata=tenant_metadata("forged")))
        assert error.reason == "UNAUTHENTICATED"
        # A tenant at its limit may still ask what there is.
        admission.tokens["poor"] = "poor"
        admission.request_limit = 0
        await stub.ListModels(model_pb2.ListModelsRequest(), metadata=tenant_metadata("poor"))


async def test_a_revoked_token_is_refused_within_a_second() -> None:
    async with (
        FakeAdmission() as admission,
        running_server(EchoServicer(), EchoEngine(), admission=admission) as (channel, _),
    ):
        await call(channel, UNARY_UNARY, metadata=tenant_metadata())
        del admission.tokens["good-token"]
        await asyncio.sleep(1.05)
        error = await refused(call(channel, UNARY_UNARY, metadata=tenant_metadata()))
    assert error.reason == "UNAUTHENTICATED"


async def test_a_stop_settles_what_still_runs() -> None:
    servicer = EchoServicer(steps(10_000, pause=0.005), bound=Usage(output_tokens=10_000))
    async with FakeAdmission() as admission:
        async with running_server(
            servicer, EchoEngine(), admission=admission, drain_seconds=0.1
        ) as (channel, _):
            stream = channel.unary_stream(UNARY_STREAM)(
                make_request("x").SerializeToString(), metadata=tenant_metadata()
            )
            await stream.read()
        booking = admission.last
    assert booking.outcome in ("FAILED", "CANCELLED")
    assert booking.usage is not None
    assert booking.usage.output_tokens >= 1
