"""The quota store's promises, against a simple model: never over, all or nothing, no leaks."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrium_common.errors import NotFound, QuotaExceeded
from atrium_gateway.quota.counters import window_bounds
from atrium_gateway.quota.in_process import InProcessQuotaStore
from atrium_gateway.quota.limits import Meter, Unit, Window

MINUTE = timedelta(minutes=1)
START = datetime(2026, 1, 31, 23, 59, 30, tzinfo=UTC).timestamp()


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def meter(limit: int, window: Window = Window.HOUR, unit: Unit = Unit.REQUESTS, key: str = ""):
    return Meter(
        key=key or f"acme:{unit}:{window}",
        capability="chat",
        unit=unit,
        window=window,
        limit=limit * unit.scale,
        scale=unit.scale,
        scope="tenant:acme",
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> InProcessQuotaStore:
    return InProcessQuotaStore(clock=clock)


@given(
    asked=st.integers(1, 60),
    limit=st.integers(0, 40),
    window=st.sampled_from(Window),
)
async def test_of_many_at_once_exactly_the_limit_is_admitted(asked, limit, window):
    store = InProcessQuotaStore(clock=Clock())

    async def one(number: int) -> bool:
        await asyncio.sleep(0)
        try:
            await store.reserve(str(number), [meter(limit, window)], [1], lease=MINUTE)
        except QuotaExceeded:
            return False
        return True

    admitted = sum(await asyncio.gather(*(one(number) for number in range(asked))))
    assert admitted == min(asked, limit)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["reserve", "settle", "release", "pass"]),
            st.integers(0, 12),
            st.integers(0, 12),
            st.integers(0, 90),
        ),
        max_size=60,
    ),
    st.integers(0, 30),
    st.integers(0, 60),
)
@settings(max_examples=200)
async def test_it_admits_what_the_simplest_model_admits(steps, tokens, requests):
    """The model: a list of (time, amount) per window, summed up anew for each question."""
    clock = Clock()
    store = InProcessQuotaStore(clock=clock)
    meters = [
        meter(tokens, Window.MINUTE, Unit.TOKENS),
        meter(3 * tokens, Window.HOUR, Unit.TOKENS),
        meter(requests, Window.TOTAL),
    ]
    taken: dict[str, list] = {}
    open_: list[str] = []

    def used(index: int) -> int:
        window, total = meters[index].window, 0
        for at, amounts in taken.values():
            inside = (
                at // 1 >= clock.now // 1 - 60
                if window is Window.MINUTE
                else window_bounds(window, int(at * 1000))
                == window_bounds(window, int(clock.now * 1000))
            )
            total += amounts[index] if inside else 0
        return total

    for number, (action, first, second, seconds) in enumerate(steps):
        if action == "reserve":
            amounts = [first, first, 1]
            fits = all(
                not a or used(i) + a <= m.limit
                for i, (m, a) in enumerate(zip(meters, amounts, strict=True))
            )
            try:
                await store.reserve(str(number), meters, amounts, lease=MINUTE)
                assert fits
                taken[str(number)] = [clock.now, amounts]
                open_.append(str(number))
            except QuotaExceeded:
                assert not fits
        elif action in ("settle", "release") and open_:
            key = open_.pop(first % len(open_))
            actual = [second, second, 1] if action == "settle" else [0, 0, 0]
            await store.settle(key, actual)
            await store.settle(key, [99, 99, 99])
            taken[key][1] = actual
        else:
            clock.now += seconds


async def test_refused_by_one_limit_it_consumes_none(store):
    wide, narrow = meter(10, Window.DAY), meter(1, Window.HOUR)
    await store.reserve("a", [wide, narrow], [1, 1], lease=MINUTE)
    for number in range(5):
        with pytest.raises(QuotaExceeded):
            await store.reserve(f"b{number}", [wide, narrow], [1, 1], lease=MINUTE)
    (state,) = await store.reserve("c", [wide], [1], lease=MINUTE)
    assert state.remaining == 8


async def test_a_refusal_says_which_limit_when_and_how_much(store):
    await store.reserve("a", [meter(1)], [1], lease=MINUTE)
    with pytest.raises(QuotaExceeded) as caught:
        await store.reserve("b", [meter(1)], [1], lease=MINUTE)
    (violation,) = caught.value.violations
    assert (violation.unit, violation.limit, violation.remaining) == ("requests", 1, 0)
    assert violation.reset_time == datetime(2026, 2, 1, tzinfo=UTC)
    assert caught.value.retry_after == timedelta(seconds=30)
    assert caught.value.reason == "RATE_LIMITED"


async def test_what_can_never_fit_is_not_worth_a_retry(store):
    with pytest.raises(QuotaExceeded) as caught:
        await store.reserve("a", [meter(10, Window.HOUR, Unit.TOKENS)], [11], lease=MINUTE)
    assert caught.value.retry_after is None
    assert caught.value.reason == "QUOTA_EXHAUSTED"


@pytest.mark.parametrize(
    ("window", "passes"),
    [
        (Window.HOUR, timedelta(seconds=30)),
        (Window.DAY, timedelta(seconds=30)),
        (Window.MONTH, timedelta(seconds=30)),
        (Window.MINUTE, timedelta(seconds=61)),
    ],
)
async def test_a_window_begins_anew(store, clock, window, passes):
    await store.reserve("a", [meter(1, window)], [1], lease=MINUTE)
    clock.now += passes.total_seconds() - 1.5
    with pytest.raises(QuotaExceeded):
        await store.reserve("b", [meter(1, window)], [1], lease=MINUTE)
    clock.now += 1.5
    await store.reserve("c", [meter(1, window)], [1], lease=MINUTE)


async def test_no_minute_holds_more_than_the_limit_not_even_around_an_edge(store, clock):
    times = []
    for number in range(600):
        clock.now += 0.37
        try:
            await store.reserve(str(number), [meter(10, Window.MINUTE)], [1], lease=MINUTE)
            times.append(clock.now)
        except QuotaExceeded:
            continue
    assert len(times) > 20
    assert all(later - sooner >= 60 for sooner, later in zip(times, times[10:], strict=False))


async def test_audio_counts_in_milliseconds_and_shows_seconds(store):
    seconds = meter(2, Window.HOUR, Unit.AUDIO_SECONDS)
    (state,) = await store.reserve("a", [seconds], [1500], lease=MINUTE)
    assert (state.limit, state.remaining) == (2, 0)
    await store.reserve("b", [seconds], [500], lease=MINUTE)
    with pytest.raises(QuotaExceeded):
        await store.reserve("c", [seconds], [1], lease=MINUTE)


async def test_settling_above_the_reservation_is_counted_truthfully(store):
    tokens = meter(10, Window.HOUR, Unit.TOKENS)
    await store.reserve("a", [tokens], [5], lease=MINUTE)
    await store.settle("a", [25])
    with pytest.raises(QuotaExceeded) as caught:
        await store.reserve("b", [tokens], [1], lease=MINUTE)
    assert caught.value.violations[0].remaining == 0


async def test_slots_are_leases(store, clock):
    slots = meter(2, Window.CONCURRENT)
    await store.reserve("a", [slots], [1], lease=MINUTE)
    await store.reserve("b", [slots], [1], lease=MINUTE)
    with pytest.raises(QuotaExceeded):
        await store.reserve("c", [slots], [1], lease=MINUTE)
    await store.settle("a", [1])
    await store.reserve("c", [slots], [1], lease=MINUTE)
    clock.now += 40
    await store.renew("c", None, lease=MINUTE)
    clock.now += 30
    await store.reserve("d", [slots], [1], lease=MINUTE)
    with pytest.raises(QuotaExceeded):
        await store.reserve("e", [slots], [1], lease=MINUTE)
    with pytest.raises(NotFound):
        await store.renew("b", None, lease=MINUTE)


async def test_growth_is_all_or_nothing_and_settles_with_the_rest(store):
    tokens, words = meter(10, Window.HOUR, Unit.TOKENS), meter(9, Window.DAY, Unit.CHARACTERS)
    await store.reserve("a", [tokens, words], [4, 4], lease=MINUTE)
    with pytest.raises(QuotaExceeded):
        await store.renew("a", [8, 10], lease=MINUTE)
    await store.renew("a", [8, 8], lease=MINUTE)
    await store.renew("a", [10, 8], lease=MINUTE)
    with pytest.raises(QuotaExceeded):
        await store.reserve("b", [tokens], [1], lease=MINUTE)
    await store.settle("a", [9, 2])
    first, second = await store.reserve("c", [tokens, words], [1, 7], lease=MINUTE)
    assert first.remaining == second.remaining == 0


async def test_a_piece_grown_in_a_later_window_settles_there(store, clock):
    tokens = meter(10, Window.HOUR, Unit.TOKENS)
    await store.reserve("a", [tokens], [6], lease=timedelta(hours=1))
    clock.now += 60
    await store.renew("a", [10], lease=timedelta(hours=1))
    await store.settle("a", [8])
    (state,) = await store.reserve("b", [tokens], [0], lease=MINUTE)
    assert state.remaining == 8


async def test_a_changed_limit_holds_at_once(store):
    await store.reserve("a", [meter(1)], [1], lease=MINUTE)
    await store.reserve("b", [meter(2)], [1], lease=MINUTE)
    with pytest.raises(QuotaExceeded):
        await store.reserve("c", [meter(1)], [1], lease=MINUTE)
