"""The promises of `WorkQueue`: slots, bounds, deadlines, and nothing leaks."""

import asyncio
import random
import time
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atrium_common.errors import AtriumError, DeadlineExceeded, Overloaded
from atrium_common.work import Batching, Serial, WorkQueue


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def turns(count: int = 5) -> None:
    """Lets every other task run to its next await a few times."""
    for _ in range(count):
        await asyncio.sleep(0)


class Holder:
    """A request in a task of its own that holds its slot until it is let go."""

    def __init__(self, queue: WorkQueue, tenant: str = "a", **options: float) -> None:
        self.go = asyncio.Event()
        self.started = False
        self.task = asyncio.create_task(self._run(queue, tenant, options))

    async def _run(self, queue: WorkQueue, tenant: str, options: dict[str, float]) -> timedelta:
        async with queue.enter(tenant=tenant, **options) as ticket:
            self.started = True
            await self.go.wait()
            return ticket.queue_time

    async def finish(self) -> timedelta:
        self.go.set()
        return await self.task


def assert_empty(queue: WorkQueue) -> None:
    assert (queue.running, queue.depth) == (0, 0)
    assert not queue._order._flows


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    slots=st.integers(1, 4),
    max_queue=st.integers(0, 6),
    chance=st.randoms(use_true_random=False),
    requests=st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from([0.5, 1.0, 4.0]),
            st.floats(0.1, 50.0),
            st.integers(0, 6),  # turns of the loop before it arrives
            st.integers(0, 6),  # turns that it works
            st.one_of(st.none(), st.integers(0, 12)),  # turns until it is cancelled
        ),
        max_size=25,
    ),
)
def test_random_traffic_keeps_the_bounds_and_leaks_nothing(
    slots: int,
    max_queue: int,
    chance: random.Random,
    requests: list[tuple[str, float, float, int, int, int | None]],
) -> None:
    async def scenario() -> None:
        queue = WorkQueue(slots=slots, max_queue=max_queue)
        inside = 0
        outcomes: Counter[str] = Counter()

        async def request(tenant: str, weight: float, cost: float, late: int, work: int) -> None:
            nonlocal inside
            await turns(late)
            try:
                async with queue.enter(tenant=tenant, weight=weight, cost=cost):
                    inside += 1
                    try:
                        assert inside <= slots
                        assert inside <= queue.running <= slots
                        await turns(work)
                    finally:
                        inside -= 1
                outcomes["done"] += 1
            except Overloaded as err:
                outcomes["refused" if err.retry_after else "refused without advice"] += 1

        async def cancel(task: asyncio.Task[None], after: int) -> None:
            await turns(after)
            task.cancel()

        tasks = []
        for tenant, weight, cost, late, work, cancelled in requests:
            task = asyncio.create_task(request(tenant, weight, cost, late, work))
            tasks.append(task)
            if cancelled is not None:
                tasks.append(asyncio.create_task(cancel(task, cancelled)))
        chance.shuffle(tasks)
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        unexpected = [
            r for r in results if r is not None and not isinstance(r, asyncio.CancelledError)
        ]
        assert not unexpected
        assert not outcomes["refused without advice"]
        assert_empty(queue)
        async with queue.enter(tenant="after"):  # and every slot is free again
            assert queue.running == 1

    asyncio.run(scenario())


async def test_as_many_as_there_are_slots_run_at_once() -> None:
    queue = WorkQueue(slots=2, max_queue=8)
    holders = [Holder(queue) for _ in range(4)]
    await turns()
    assert [h.started for h in holders] == [True, True, False, False]
    assert (queue.running, queue.depth) == (2, 2)
    await holders[0].finish()
    await turns()
    assert [h.started for h in holders] == [True, True, True, False]
    for holder in holders[1:]:
        await holder.finish()
    assert_empty(queue)


async def test_a_full_queue_refuses_at_once() -> None:
    queue = WorkQueue(slots=1, max_queue=1)
    holders = [Holder(queue), Holder(queue)]
    await turns()
    began = time.perf_counter()
    with pytest.raises(Overloaded) as refusal:
        async with queue.enter(tenant="a"):
            pass
    assert time.perf_counter() - began < 0.1
    assert refusal.value.retry_after == timedelta(seconds=1)
    for holder in holders:
        await holder.finish()
    assert_empty(queue)


async def test_without_a_queue_only_free_slots_are_given() -> None:
    queue = WorkQueue(slots=1, max_queue=0)
    holder = Holder(queue)
    await turns()
    with pytest.raises(Overloaded):
        async with queue.enter(tenant="b"):
            pass
    await holder.finish()
    async with queue.enter(tenant="b"):
        pass


async def test_a_flood_does_not_shut_others_out() -> None:
    """200 requests of one tenant fill the queue; another's first is next but one."""
    queue = WorkQueue(slots=1, max_queue=16)
    flood = [Holder(queue, "flood") for _ in range(200)]
    await turns()
    refused = [h.task for h in flood if h.task.done()]
    assert len(refused) == 200 - 17
    newcomer = Holder(queue, "new")
    await turns()
    assert queue.depth == 16
    refused = [h.task for h in flood if h.task.done()]
    assert len(refused) == 200 - 16
    assert all(isinstance(task.exception(), Overloaded) for task in refused)
    served = 0
    for holder in (h for h in flood if not h.task.done()):
        if newcomer.started:
            break
        await holder.finish()
        await turns()
        served += 1
    assert served <= 2
    await newcomer.finish()
    for holder in flood:
        holder.task.cancel()
    await asyncio.gather(*(h.task for h in flood), return_exceptions=True)
    assert_empty(queue)


async def test_a_passed_deadline_is_refused_before_waiting() -> None:
    clock = Clock()
    queue = WorkQueue(slots=1, max_queue=8, clock=clock)
    with pytest.raises(DeadlineExceeded):
        async with queue.enter(tenant="a", deadline=clock.now):
            pass
    assert_empty(queue)


async def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    clock = Clock()
    queue = WorkQueue(slots=1, max_queue=8, clock=clock)
    async with queue.enter(tenant="a"):
        clock.now += 10.0  # so work takes about 10 s
    holders = [Holder(queue), Holder(queue)]
    await turns()
    with pytest.raises(DeadlineExceeded) as refusal:
        async with queue.enter(tenant="a", deadline=clock.now + 15.0):
            pass
    assert refusal.value.reason == "DEADLINE_INFEASIBLE"
    assert refusal.value.retry_after == timedelta(seconds=20)
    feasible = Holder(queue, "a", deadline=clock.now + 25.0)
    other = Holder(queue, "b", deadline=clock.now + 15.0)  # its share comes before a's second
    await turns()
    assert queue.depth == 3
    await asyncio.gather(*(holder.finish() for holder in (*holders, other, feasible)))
    assert_empty(queue)


async def test_a_deadline_that_passes_while_waiting_ends_the_wait() -> None:
    queue = WorkQueue(slots=1, max_queue=8)
    holder = Holder(queue)
    await turns()
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        async with queue.enter(tenant="b", deadline=began + 0.05):
            pass
    assert 0.04 < time.monotonic() - began < 1.0
    assert queue.depth == 0
    await holder.finish()
    assert_empty(queue)


async def test_an_overload_says_when_half_of_the_queue_is_through() -> None:
    clock = Clock()
    queue = WorkQueue(slots=1, max_queue=4, clock=clock)
    async with queue.enter(tenant="a"):
        clock.now += 2.0
    holders = [Holder(queue) for _ in range(5)]
    await turns()
    with pytest.raises(Overloaded) as refusal:
        async with queue.enter(tenant="a"):
            pass
    # One runs (2 s), and three of the five that would wait go first.
    assert refusal.value.retry_after == timedelta(seconds=8)
    for holder in holders:
        await holder.finish()


async def test_queue_time_is_told() -> None:
    clock = Clock()
    queue = WorkQueue(slots=1, max_queue=4, clock=clock)
    first, second = Holder(queue), Holder(queue)
    await turns()
    clock.now += 3.0
    assert await first.finish() == timedelta()
    assert await second.finish() == timedelta(seconds=3)


async def test_an_error_inside_frees_the_slot() -> None:
    queue = WorkQueue(slots=1, max_queue=4)
    with pytest.raises(AtriumError):
        async with queue.enter(tenant="a"):
            raise AtriumError("broken")
    assert_empty(queue)


async def test_a_slot_that_comes_with_the_cancellation_goes_to_the_next() -> None:
    queue = WorkQueue(slots=1, max_queue=4)
    first, second, third = (Holder(queue) for _ in range(3))
    await turns()
    first.go.set()
    await asyncio.sleep(0)  # first leaves, second has its slot but has not run
    second.task.cancel()
    await turns()
    assert third.started
    await third.finish()
    await asyncio.gather(first.task, second.task, return_exceptions=True)
    assert_empty(queue)


@pytest.mark.parametrize(("weight", "cost"), [(0.0, 1.0), (1.0, 0.0), (float("nan"), 1.0)])
async def test_senseless_weights_and_costs_are_refused(weight: float, cost: float) -> None:
    queue = WorkQueue(slots=1, max_queue=4)
    with pytest.raises(ValueError, match="above 0"):
        async with queue.enter(tenant="a", weight=weight, cost=cost):
            pass


def test_the_engine_says_how_many_slots() -> None:
    assert WorkQueue.for_engine(Serial(), max_queue=4).slots == 1
    assert WorkQueue.for_engine(Batching(slots=16), max_queue=4).slots == 16
    with pytest.raises(ValueError, match="slots"):
        Batching(slots=0)
