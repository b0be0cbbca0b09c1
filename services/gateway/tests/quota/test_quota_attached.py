"""Running work that is counted in limits set since: as if they had been there when it began."""

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quota_stores import MINUTE, TENANT, Clock, meter, nothing

from atrium_common.errors import QuotaExceeded
from atrium_gateway.quota.counters import window_bounds
from atrium_gateway.quota.limits import Unit, Window
from atrium_gateway.quota.store import Hold, Unseeded

DAY = timedelta(days=1)
TOKENS = meter(100, Window.DAY, Unit.TOKENS)
SLOTS = meter(1, Window.CONCURRENT)


def hold(name: str, meters, amounts) -> Hold:
    return Hold(TENANT, name, meters, amounts, MINUTE, name.encode())


async def used(store, *meters) -> list[int]:
    return [reading.used for reading in await store.store.peek(TENANT, meters)]


async def test_slots_that_run_count_in_a_limit_that_is_set_and_are_free_when_they_end(store):
    for name in "abc":
        await store.reserve(name, [], [])
        assert await store.store.attach(hold(name, [SLOTS], [1]))
    with pytest.raises(QuotaExceeded):
        await store.reserve("d", [SLOTS], [1])
    await store.settle("a", [1])
    await store.settle("b", [0])
    assert await used(store, SLOTS) == [1]
    await store.settle("c", [])  # by one who does not know of it
    await store.reserve("d", [SLOTS], [1])


async def test_a_lease_that_is_not_renewed_frees_the_slot_and_keeps_the_rest_counted(store, clock):
    clock.now -= 3600
    await store.store.seed(TENANT, TOKENS, nothing)
    await store.reserve("a", [], [])
    clock.now += 30
    assert await store.store.attach(hold("a", [SLOTS, TOKENS], [1, 40]))
    clock.now += 29
    assert await used(store, SLOTS, TOKENS) == [1, 40]
    clock.now += 2
    assert await used(store, SLOTS, TOKENS) == [0, 40]
    assert await store.store.claim(TENANT, "a") == b"a"
    assert not await store.store.attach(hold("a", [SLOTS, TOKENS], [1, 40]))
    assert await used(store, SLOTS, TOKENS) == [0, 40]


async def test_what_settles_while_the_ledger_is_asked_counts_once(store, clock):
    clock.now -= 3600
    ledger: dict[str, int] = {"before": 7}
    asked: list[list[str]] = []
    for name in "abc":
        await store.reserve(name, [], [])
    for name in "ab":
        assert await store.store.attach(hold(name, [TOKENS], [10]))
    with pytest.raises(Unseeded):
        await store.store.reserve(hold("d", [TOKENS], [1]))

    async def consumed(apart) -> int:
        asked.append(sorted(apart))
        if len(asked) == 1:
            assert await store.settle("a", [4])
            ledger["a"] = 4
            assert await store.store.attach(hold("c", [TOKENS], [10]))
        return sum(amount for name, amount in ledger.items() if name not in apart)

    for _ in range(2):
        await store.store.seed(TENANT, TOKENS, consumed)
    assert asked[:2] == [["a", "b"], ["a", "b", "c"]]
    assert await used(store, TOKENS) == [7 + 4 + 10 + 10]
    assert await store.settle("b", [25])
    assert await store.settle("c", [0])
    assert await used(store, TOKENS) == [7 + 4 + 25]


async def test_attached_again_it_counts_once_and_grows_within_the_new_limit(store, clock):
    clock.now -= 3600
    hour = meter(1000, Window.HOUR, Unit.TOKENS)
    await store.reserve("a", [hour], [30])
    both = hold("a", [hour, TOKENS], [30, 30])
    for _ in range(2):
        assert await store.store.attach(both)
    store.meters["a"] = [hour, TOKENS]
    with pytest.raises(Unseeded):
        await store.renew("a", [50, 50])
    await store.store.seed(TENANT, TOKENS, nothing)
    with pytest.raises(QuotaExceeded):
        await store.renew("a", [101, 101])
    await store.renew("a", [100, 100])
    assert await used(store, hour, TOKENS) == [100, 100]
    await store.store.attach(both)
    store.meters["a"] = [hour]
    await store.renew("a", [120])  # by one who does not know of the other
    await store.settle("a", [60])
    assert await used(store, hour, TOKENS) == [60, 100]


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["reserve", "reserve", "settle", "set", "pass"]),
            st.integers(0, 12),
            st.integers(0, 12),
            st.integers(0, 90_000),
        ),
        max_size=40,
    ),
    window=st.sampled_from([Window.HOUR, Window.DAY, Window.TOTAL, Window.CONCURRENT]),
    limit=st.integers(0, 60),
)
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_a_limit_admits_what_one_does_that_was_there_from_the_beginning(
    make_store, steps, window, limit
):
    clock = Clock()
    store = make_store(clock)
    unit = Unit.REQUESTS if window is Window.CONCURRENT else Unit.TOKENS
    wide, late = meter(10_000, Window.TOTAL, Unit.CHARACTERS), meter(limit, window, unit)
    taken: dict[str, tuple[int, int]] = {}  # when, and how much
    running: list[str] = []
    meters = [wide]

    def counts(name: str) -> bool:
        if window is Window.CONCURRENT:
            return name in running
        now = int(clock.now * 1000)
        return window_bounds(window, taken[name][0]) == window_bounds(window, now)

    async def consumed(apart) -> int:
        closed = taken.keys() - set(running) - set(apart)
        return sum(taken[name][1] for name in closed if counts(name))

    async def reserve(name: str, amount: int) -> None:
        asked = Hold(TENANT, name, meters, [0, amount][: len(meters)], DAY)
        try:
            await store.store.reserve(asked)
        except Unseeded as err:
            for each in err.meters:
                await store.store.seed(TENANT, each, nothing if each is wide else consumed)
            await store.store.reserve(asked)

    for number, (action, first, second, passes) in enumerate(steps):
        if action == "reserve":
            name, amount = str(number), 1 if window is Window.CONCURRENT else first
            full = sum(taken[each][1] for each in taken if counts(each)) + amount > limit
            try:
                await reserve(name, amount)
            except QuotaExceeded:
                assert len(meters) == 2
                assert amount
                assert full
            else:
                assert len(meters) == 1 or not amount or not full
                taken[name] = (int(clock.now * 1000), amount)
                running.append(name)
        elif action == "settle" and running:
            name = running.pop(first % len(running))
            at, amount = taken[name]
            actual = amount if window is Window.CONCURRENT else second
            assert await store.settle(name, [0, actual])
            taken[name] = (at, actual)
        elif action == "set" and len(meters) == 1:
            meters.append(late)
            for name in filter(counts, running):
                asked = Hold(TENANT, name, meters, [0, taken[name][1]], DAY)
                assert await store.store.attach(asked)
        else:
            clock.now += passes / 1000


async def test_where_the_answer_was_lost_its_owner_closes_it_in_both_cases(store, clock):
    """Who does not know whether it was attached settles and grows it as if it had been."""
    clock.now -= 3600
    await store.store.seed(TENANT, TOKENS, nothing)
    for name in ("done", "lost"):
        await store.reserve(name, [], [])
    assert await store.store.attach(hold("done", [TOKENS], [40]))
    await store.settle("done", [7])
    await store.settle("lost", [9])
    assert await used(store, TOKENS) == [7]


async def test_what_grows_in_a_limit_that_it_was_never_attached_to_is_attached_by_it(shared, clock):
    clock.now -= 3600
    await shared.seed(TENANT, TOKENS, nothing)
    await shared.reserve(hold("a", [SLOTS], [1]))
    await shared.renew(hold("a", [SLOTS, TOKENS], [1, 40]), grow=True)
    assert [reading.used for reading in await shared.peek(TENANT, [SLOTS, TOKENS])] == [1, 40]
    await shared.settle(TENANT, "a", [0, 7])
    assert [reading.used for reading in await shared.peek(TENANT, [SLOTS, TOKENS])] == [0, 7]
