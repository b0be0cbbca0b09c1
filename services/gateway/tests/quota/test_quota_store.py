"""The quota stores' promises, one suite for each: never over, all or nothing, no leaks."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from quota_stores import START, TENANT, Counted, meter

from atrium_common.errors import NotFound, QuotaExceeded
from atrium_gateway.quota.in_process import InProcessQuotaStore
from atrium_gateway.quota.limits import NEVER, Unit, Window
from atrium_gateway.quota.store import Unseeded


async def test_refused_by_one_limit_it_consumes_none(store):
    wide, narrow = meter(10, Window.DAY), meter(1, Window.HOUR)
    await store.reserve("a", [wide, narrow], [1, 1])
    for number in range(5):
        with pytest.raises(QuotaExceeded):
            await store.reserve(f"b{number}", [wide, narrow], [1, 1])
    (state,) = await store.reserve("c", [wide], [1])
    assert state.remaining == 8


async def test_a_refusal_says_which_limit_when_and_how_much(store):
    await store.reserve("a", [meter(1)], [1])
    with pytest.raises(QuotaExceeded) as caught:
        await store.reserve("b", [meter(1)], [1])
    (violation,) = caught.value.violations
    assert (violation.unit, violation.limit, violation.remaining) == ("requests", 1, 0)
    assert violation.reset_time == datetime(2026, 2, 1, tzinfo=UTC)
    assert caught.value.retry_after == timedelta(seconds=30)
    assert caught.value.reason == "RATE_LIMITED"


async def test_what_can_never_fit_is_not_worth_a_retry(store):
    with pytest.raises(QuotaExceeded) as caught:
        await store.reserve("a", [meter(10, Window.HOUR, Unit.TOKENS)], [11])
    assert caught.value.retry_after is None
    assert caught.value.reason == "QUOTA_EXHAUSTED"


async def test_nothing_fits_into_nothing_and_never_will(store):
    barred = [meter(0, window) for window in (Window.MINUTE, Window.TOTAL)]
    with pytest.raises(QuotaExceeded) as caught:
        await store.reserve("a", barred, [1, 1])
    assert [violation.reset_time for violation in caught.value.violations] == [NEVER] * 2
    assert caught.value.retry_after is None
    states = await store.reserve("b", barred, [0, 0])
    assert [state.remaining for state in states] == [0, 0]


@pytest.mark.parametrize(
    ("window", "passes"),
    [
        (Window.HOUR, timedelta(seconds=30)),
        (Window.DAY, timedelta(seconds=30)),
        (Window.MONTH, timedelta(seconds=30)),
        (Window.MINUTE, timedelta(seconds=60)),
    ],
)
async def test_a_window_begins_anew(store, clock, window, passes):
    await store.reserve("a", [meter(1, window)], [1])
    clock.now += passes.total_seconds() - 1.5
    with pytest.raises(QuotaExceeded):
        await store.reserve("b", [meter(1, window)], [1])
    clock.now += 1.5
    await store.reserve("c", [meter(1, window)], [1])


async def test_a_minute_gives_its_limit_at_once_and_then_one_by_one(store, clock):
    admitted = []
    for step in range(1200):
        clock.now = START + step * 0.1
        try:
            await store.reserve(str(step), [meter(10, Window.MINUTE)], [1])
            admitted.append(step / 10)
        except QuotaExceeded:
            continue
    assert admitted[:10] == [step / 10 for step in range(10)]
    rest = admitted[10:]
    assert rest == pytest.approx([6.0 * number for number in range(1, 1 + len(rest))], abs=0.11)


async def test_a_minute_gives_back_only_what_has_not_drained(store, clock):
    tokens = meter(60, Window.MINUTE, Unit.TOKENS)
    await store.reserve("a", [tokens], [60], lease=timedelta(hours=1))
    clock.now += 45
    await store.settle("a", [0])
    (state,) = await store.reserve("b", [tokens], [0])
    assert state.remaining == 60
    await store.reserve("c", [tokens], [60], lease=timedelta(hours=1))
    await store.reserve("d", [tokens], [0])
    clock.now += 60
    await store.reserve("e", [tokens], [60])
    await store.settle("c", [0])  # all of it has drained: nothing comes back
    with pytest.raises(QuotaExceeded) as caught:
        await store.reserve("f", [tokens], [30])
    assert caught.value.retry_after == timedelta(seconds=30)


async def test_audio_counts_in_milliseconds_and_shows_seconds(store):
    seconds = meter(2, Window.HOUR, Unit.AUDIO_SECONDS)
    (state,) = await store.reserve("a", [seconds], [1500])
    assert (state.limit, state.remaining) == (2, 0)
    await store.reserve("b", [seconds], [500])
    with pytest.raises(QuotaExceeded):
        await store.reserve("c", [seconds], [1])


async def test_settling_above_the_reservation_is_counted_truthfully(store):
    tokens = meter(10, Window.HOUR, Unit.TOKENS)
    await store.reserve("a", [tokens], [5])
    await store.settle("a", [25])
    with pytest.raises(QuotaExceeded) as caught:
        await store.reserve("b", [tokens], [1])
    assert caught.value.violations[0].remaining == 0


async def test_slots_are_leases(store, clock):
    slots = meter(2, Window.CONCURRENT)
    await store.reserve("a", [slots], [1])
    await store.reserve("b", [slots], [1])
    with pytest.raises(QuotaExceeded):
        await store.reserve("c", [slots], [1])
    await store.settle("a", [1])
    await store.reserve("c", [slots], [1])
    clock.now += 40
    await store.renew("c", None)
    clock.now += 30
    await store.reserve("d", [slots], [1])
    with pytest.raises(QuotaExceeded):
        await store.reserve("e", [slots], [1])
    with pytest.raises(NotFound):
        await store.renew("b", None)


async def test_growth_is_all_or_nothing_and_settles_with_the_rest(store):
    tokens, words = meter(10, Window.HOUR, Unit.TOKENS), meter(9, Window.DAY, Unit.CHARACTERS)
    await store.reserve("a", [tokens, words], [4, 4])
    with pytest.raises(QuotaExceeded):
        await store.renew("a", [8, 10])
    await store.renew("a", [8, 8])
    await store.renew("a", [10, 8])
    with pytest.raises(QuotaExceeded):
        await store.reserve("b", [tokens], [1])
    await store.settle("a", [9, 2])
    first, second = await store.reserve("c", [tokens, words], [1, 7])
    assert first.remaining == second.remaining == 0


async def test_a_piece_grown_in_a_later_window_settles_there(store, clock):
    tokens = meter(10, Window.HOUR, Unit.TOKENS)
    await store.reserve("a", [tokens], [6], lease=timedelta(hours=1))
    clock.now += 60
    await store.renew("a", [10], lease=timedelta(hours=1))
    await store.settle("a", [8])
    (state,) = await store.reserve("b", [tokens], [0])
    assert state.remaining == 8


async def test_a_changed_limit_holds_at_once(store):
    await store.reserve("a", [meter(1)], [1])
    await store.reserve("b", [meter(2)], [1])
    with pytest.raises(QuotaExceeded):
        await store.reserve("c", [meter(1)], [1])


async def lapsed(store: Counted) -> list[str] | None:
    """What a shared store lists for others to claim; ``None`` of one that has no others."""
    if isinstance(store.store, InProcessQuotaStore):
        return None
    return list(await store.store.lapsed(TENANT))


async def test_a_lapsed_reservation_is_claimed_once_and_stays_consumed(store, clock):
    limits = [meter(2, Window.HOUR), meter(1, Window.CONCURRENT, key="acme:slots")]
    await store.reserve("a", limits, [1, 1], note=b"whose it was")
    assert await store.store.claim(TENANT, "a") is None
    clock.now += 61
    assert await lapsed(store) in (["a"], None)
    claims = await asyncio.gather(*(store.store.claim(TENANT, "a") for _ in range(5)))
    assert sorted(claims, key=bool) == [None] * 4 + [b"whose it was"]
    assert not await lapsed(store)
    assert not await store.settle("a", [0, 0])
    first, second = await store.reserve("b", limits, [0, 1])
    assert {first.remaining, second.remaining} == {0, 2}  # a new hour has begun


async def test_a_peek_at_counters_that_are_not_seeded_names_them(store):
    limits = [meter(1, Window.MINUTE), meter(1, Window.DAY)]
    with pytest.raises(Unseeded) as caught:
        await store.store.peek(TENANT, limits)
    assert list(caught.value.meters) == limits[1:]
