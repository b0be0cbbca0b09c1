"""A simple model says what the quota stores must admit; all count in the same whole numbers."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quota_stores import START, TENANT, Clock, meter

from atrium_common.errors import QuotaExceeded
from atrium_gateway.quota.counters import DROPS, window_bounds
from atrium_gateway.quota.limits import Meter, Unit, Window

_MANY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(
    asked=st.integers(1, 60),
    limit=st.integers(0, 40),
    window=st.sampled_from(Window),
)
@_MANY
async def test_of_many_at_once_exactly_the_limit_is_admitted(make_store, asked, limit, window):
    store = make_store(Clock())

    async def one(number: int) -> bool:
        await asyncio.sleep(0)
        try:
            await store.reserve(str(number), [meter(limit, window)], [1])
        except QuotaExceeded:
            return False
        return True

    admitted = sum(await asyncio.gather(*(one(number) for number in range(asked))))
    assert admitted == min(asked, limit)


class Model:
    """The simplest bookkeeping: all that was ever taken, looked at anew for each question.

    A bucket is a queue of portions, of which the oldest drain first.
    """

    def __init__(self, meters: list[Meter], clock: Clock) -> None:
        self.meters, self.clock = meters, clock
        self.taken: list[list] = [[] for _ in meters]  # [id, ms, amount]
        self.queues: list[list] = [[] for _ in meters]  # [id, drops]
        self.seen = self.now

    @property
    def now(self) -> int:
        return int(self.clock.now * 1000)

    def drain(self) -> None:
        elapsed, self.seen = self.now - self.seen, self.now
        for each, queue in zip(self.meters, self.queues, strict=True):
            drops = each.limit * elapsed
            while drops and queue:
                gone = min(drops, queue[0][1])
                drops -= gone
                queue[0][1] -= gone
                if not queue[0][1]:
                    queue.pop(0)

    def used(self, index: int) -> int:
        meter = self.meters[index]
        if meter.window is Window.MINUTE:
            return -(-sum(drops for _, drops in self.queues[index]) // DROPS)
        here = window_bounds(meter.window, self.now)
        return sum(
            amount for _, at, amount in self.taken[index] if window_bounds(meter.window, at) == here
        )

    def fits(self, amounts: list[int]) -> bool:
        return all(
            not amount or self.used(index) + amount <= each.limit
            for index, (each, amount) in enumerate(zip(self.meters, amounts, strict=True))
        )

    def take(self, key: str, amounts: list[int]) -> None:
        for index, amount in enumerate(amounts):
            self.taken[index].append([key, self.now, amount])
            self.queues[index].append([key, amount * DROPS])

    def settle(self, key: str, actual: list[int]) -> None:
        for index, amount in enumerate(actual):
            for item in self.taken[index]:
                if item[0] == key:
                    delta = amount - item[2]
                    item[2] = amount
            queue = self.queues[index]
            if delta > 0:
                queue.append([key + "+", delta * DROPS])
            for item in queue:
                if item[0] == key and delta < 0:
                    item[1] -= min(item[1], -delta * DROPS)
            queue[:] = [item for item in queue if item[1]]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["reserve", "settle", "release", "pass"]),
            st.integers(0, 12),
            st.integers(0, 12),
            st.integers(0, 90_000),
        ),
        max_size=60,
    ),
    st.integers(0, 30),
    st.integers(0, 60),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_it_admits_what_the_simplest_model_admits(make_store, steps, tokens, requests):
    clock = Clock()
    store = make_store(clock)
    meters = [
        meter(tokens, Window.MINUTE, Unit.TOKENS),
        meter(3 * tokens, Window.HOUR, Unit.TOKENS),
        meter(requests, Window.TOTAL),
    ]
    model = Model(meters, clock)
    open_: list[str] = []
    for number, (action, first, second, passes) in enumerate(steps):
        model.drain()
        if action == "reserve":
            amounts = [first, first, 1]
            try:
                await store.reserve(str(number), meters, amounts, lease=timedelta(days=1))
                assert model.fits(amounts)
                model.take(str(number), amounts)
                open_.append(str(number))
            except QuotaExceeded:
                assert not model.fits(amounts)
        elif action in ("settle", "release") and open_:
            key = open_.pop(first % len(open_))
            actual = [second, second, 1] if action == "settle" else [0, 0, 0]
            assert await store.settle(key, actual)
            assert not await store.settle(key, [99, 99, 99])
            model.settle(key, actual)
        else:
            clock.now += passes / 1000


@given(
    taken=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=8),
    limit=st.integers(0, 30),
    window=st.sampled_from(Window),
)
@_MANY
async def test_a_peek_tells_what_a_reservation_would_find_and_takes_nothing(
    make_store, taken, limit, window
):
    store = make_store(Clock())
    limits = [meter(limit, window), meter(50, Window.DAY, Unit.TOKENS)]
    for number, (one, other) in enumerate(taken):
        try:
            await store.reserve(str(number), limits, [min(one, 1), other])
        except QuotaExceeded:
            continue
    if not taken:
        await store.reserve("none", limits, [0, 0])
    for _ in range(2):
        first, second = await store.store.peek(TENANT, limits)
    states = await store.reserve("last", limits, [0, 0])
    left = {state.unit: state.remaining for state in states}
    assert left == {
        "requests": max(limit - first.used, 0),
        "tokens": max(50 - second.used, 0),
    }
    resets = {state.unit: state.reset_time for state in states}
    assert datetime.fromtimestamp(second.resets / 1000, UTC) == resets["tokens"]


class Moments(Clock):
    """Whole milliseconds, the same whichever way they are rounded."""

    def __init__(self) -> None:
        self.ms = int(START * 1000)

    def __call__(self) -> float:
        return (self.ms + 0.2) / 1000


@given(
    steps=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 40_000)), max_size=25),
    limits=st.lists(
        st.tuples(
            st.sampled_from([Window.MINUTE, Window.HOUR, Window.DAY, Window.MONTH]),
            st.integers(0, 30),
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda each: each[0],
    ),
)
@_MANY
async def test_who_comes_back_when_told_is_let_in_and_not_a_moment_before(
    make_store, steps, limits
):
    clock = Moments()
    store = make_store(clock)
    meters = [meter(limit, window, Unit.TOKENS) for window, limit in limits]
    for number, (amount, passes) in enumerate(steps):
        clock.ms += passes
        amounts = [amount] * len(meters)
        try:
            await store.reserve(str(number), meters, amounts)
        except QuotaExceeded as refused:
            if refused.retry_after is None:
                assert any(amount > limit for _, limit in limits)
                continue
            wait = refused.retry_after // timedelta(milliseconds=1)
            if wait > 1:
                clock.ms += wait - 1
                with pytest.raises(QuotaExceeded):
                    await store.reserve(f"early{number}", meters, amounts)
                wait = 1
            clock.ms += wait
            await store.reserve(f"back{number}", meters, amounts)
