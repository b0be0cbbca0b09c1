"""The promises of `BatchingLoop`: every request is told its end, whatever happens to the thread."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from atrium_common.errors import AtriumError, Unavailable
from atrium_common.telemetry.spans import find_tracer, recorded
from atrium_common.work import BatchingLoop


class Mailbox:
    """Collects numbers; `ended` tells what the reader was told at the end."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.ends = 0
        self.ended: asyncio.Future[AtriumError | None] = asyncio.get_running_loop().create_future()

    def put(self, number: int) -> None:
        assert not self.ends
        self.numbers.append(number)

    def end(self, error: AtriumError | None) -> None:
        self.ends += 1
        self.ended.set_result(error)


@dataclass(eq=False)
class Count:
    """Counts up to a limit, one number a turn; without a limit until it is cancelled."""

    limit: int | None = None
    mailbox: Mailbox = field(default_factory=Mailbox)
    counted: int = 0
    cancelled: bool = False
    released: bool = False


class Counter(BatchingLoop[Count]):
    """Counts for all its requests at once."""

    def __init__(self, failures: list[str]) -> None:
        events = asyncio.get_running_loop()
        super().__init__(events=events, on_failure=failures.append, name="counter")
        self.admitted: list[Count] = []
        self.turns = 0
        self.names: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def _admit(self, request: Count) -> None:
        self.admitted.append(request)

    def _turn(self) -> bool:
        self.gate.wait()
        self.turns += 1
        self.names.add(threading.current_thread().name)
        if self.admitted:
            self._count_batch(len(self.admitted), self.admitted)
        for request in tuple(self.admitted):
            request.counted += 1
            self._post(request.mailbox.put, request.counted)
            if request.counted == request.limit:
                self._release(request, None)
        if self.error is not None and self.turns > 1:
            raise self.error
        return bool(self.admitted)

    def _let_go(self, request: Count) -> None:
        if request in self.admitted:
            self.admitted.remove(request)


@pytest.fixture
def failures() -> list[str]:
    return []


@pytest.fixture
async def counter(failures: list[str]) -> AsyncGenerator[Counter, None]:
    loop = Counter(failures)
    loop.start()
    yield loop
    loop.gate.set()
    await asyncio.to_thread(loop.stop)
    assert not loop._thread.is_alive()
    assert not loop.admitted
    assert not loop._requests


def submit(counter: Counter, *limits: int | None) -> list[Count]:
    """Hands one request for each limit to the loop."""
    requests = [Count(limit) for limit in limits]
    for request in requests:
        counter.submit(request)
    return requests


async def test_requests_are_served_together_and_in_order(
    counter: Counter, failures: list[str]
) -> None:
    requests = submit(counter, 200, 3, 50)
    assert [await request.mailbox.ended for request in requests] == [None] * 3
    assert [r.mailbox.numbers for r in requests] == [
        list(range(1, limit + 1)) for limit in (200, 3, 50)
    ]
    assert counter.names == {"counter"}
    assert not failures


async def test_without_work_it_sleeps_until_news_come(counter: Counter) -> None:
    await submit(counter, 5)[0].mailbox.ended
    before = counter.turns
    await asyncio.sleep(0.02)
    assert counter.turns <= before + 1
    await submit(counter, 5)[0].mailbox.ended


async def test_a_cancelled_request_ends_alone(counter: Counter) -> None:
    leaving, staying = submit(counter, None, None)
    counter.cancel(leaving)
    assert await leaving.mailbox.ended is None
    assert not staying.mailbox.ends
    counter.cancel(staying)
    assert await staying.mailbox.ended is None


async def test_one_that_is_cancelled_before_it_is_seen_is_never_admitted(counter: Counter) -> None:
    request = Count(cancelled=True)
    counter.submit(request)
    assert await request.mailbox.ended is None
    assert request.mailbox.numbers == []


async def test_stopping_tells_everyone_and_refuses_more(
    counter: Counter, failures: list[str]
) -> None:
    requests = submit(counter, *[None] * 9)
    await asyncio.to_thread(counter.stop)
    assert {type(await request.mailbox.ended) for request in requests} == {Unavailable}
    await asyncio.to_thread(counter.stop)
    with pytest.raises(Unavailable):
        submit(counter, 1)
    assert not failures


async def test_when_the_thread_dies_everyone_is_told_and_the_state_is_known(
    counter: Counter, failures: list[str]
) -> None:
    requests = submit(counter, *[None] * 3)
    counter.error = ValueError("broken")
    for request in requests:
        assert isinstance(await request.mailbox.ended, Unavailable)
        assert failures == ["ValueError: broken"]
    assert [request.mailbox.ends for request in requests] == [1, 1, 1]
    with pytest.raises(Unavailable):
        submit(counter, 1)


async def test_it_takes_nothing_before_it_was_started(failures: list[str]) -> None:
    loop = Counter(failures)
    with pytest.raises(Unavailable):
        submit(loop, 1)
    loop.stop()


async def test_it_ends_when_its_readers_event_loop_is_closed() -> None:
    async def leave() -> Counter:
        counter = Counter([])
        counter.start()
        counter.gate.clear()
        submit(counter, None)
        return counter

    def orphan() -> Counter:
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(leave())
        finally:
            loop.close()

    counter = await asyncio.to_thread(orphan)
    counter.gate.set()
    await asyncio.to_thread(counter._thread.join, 30)
    assert not counter._thread.is_alive()


async def test_the_submitters_span_learns_of_its_batches(counter: Counter) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = find_tracer(provider)
    assert tracer is not None
    counter.gate.clear()
    alone, traced = Count(limit=1), Count(limit=3)
    counter.submit(alone)
    span = tracer.start_span("inference")
    token = otel_context.attach(recorded(tracer, span))
    counter.submit(traced)
    otel_context.detach(token)
    counter.gate.set()
    await asyncio.gather(alone.mailbox.ended, traced.mailbox.ended)
    span.end()
    (told,) = exporter.get_finished_spans()
    attributes = told.attributes or {}
    # The first turn may have begun before the second request came.
    assert attributes["atrium.batch.steps"] == 3
    assert attributes["atrium.batch.rows.max"] in (1, 2)
    assert not counter._shares
    provider.shutdown()
