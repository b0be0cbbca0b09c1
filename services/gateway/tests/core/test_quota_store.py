"""The quota stores' promises, one suite for each: never over, all or nothing, no leaks.

A simple model says what must be admitted; both stores count in the same whole numbers.
"""

import asyncio
import itertools
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import BlockingConnectionPool, Redis

from atrium_common.errors import NotFound, QuotaExceeded, Unavailable
from atrium_gateway.quota.counters import window_bounds
from atrium_gateway.quota.in_process import InProcessQuotaStore
from atrium_gateway.quota.limits import NEVER, Meter, Unit, Window
from atrium_gateway.quota.redis_store import RedisQuotaStore
from atrium_gateway.quota.store import Hold, QuotaStore, Unseeded

MINUTE = timedelta(minutes=1)
START = datetime(2026, 1, 31, 23, 59, 30, tzinfo=UTC).timestamp()
TENANT = "acme"
DROPS = 60_000


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


async def nothing(apart) -> int:
    """What a ledger without events says."""
    return 0


class Counted:
    """A store as these tests use it: the tenant is known, and what is not seeded starts at 0."""

    def __init__(self, store: QuotaStore) -> None:
        self.store = store
        self.meters: dict[str, list[Meter]] = {}

    async def reserve(self, key, meters, amounts, *, lease=MINUTE, note=b""):
        self.meters[key] = meters
        for _ in range(2):
            try:
                return await self.store.reserve(Hold(TENANT, key, meters, amounts, lease, note))
            except Unseeded as err:
                for each in err.meters:
                    await self.store.seed(TENANT, each, nothing)
        raise AssertionError("seeded, and still not seeded")

    async def renew(self, key, amounts, *, lease=MINUTE):
        hold = Hold(TENANT, key, self.meters.get(key, []), amounts or [], lease)
        await self.store.renew(hold, grow=amounts is not None)

    async def settle(self, key, amounts):
        return await self.store.settle(TENANT, key, amounts)


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


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real Redis of these tests' own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    with redis_server(port, folder):
        yield port


class redis_server:
    """Runs a Redis on `port` while it is entered."""

    def __init__(self, port: int, folder: Path) -> None:
        self._port, self._folder = port, folder

    def __enter__(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self._port), "--save", "", "--appendonly", "no",
             "--dir", str(self._folder), "--bind", "127.0.0.1"],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port)).close()
                return self._process
            except OSError:
                assert time.monotonic() < deadline, "redis-server does not start"
                time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def clock() -> Clock:
    return Clock()


_PREFIXES = (f"test{number}" for number in itertools.count())


@pytest_asyncio.fixture(params=["in_process", "redis"])
async def make_store(request: pytest.FixtureRequest) -> AsyncIterator[object]:
    """Makes an empty store over a clock."""
    if request.param == "in_process":
        yield lambda clock: Counted(InProcessQuotaStore(clock=clock))
        return
    client = Redis(port=request.getfixturevalue("redis_port"))
    yield lambda clock: Counted(
        RedisQuotaStore(client, prefix=next(_PREFIXES), clock=clock, timeout=timedelta(seconds=20))
    )
    await client.aclose()


@pytest.fixture
def store(make_store, clock: Clock) -> Counted:
    return make_store(clock)


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
        for meter, queue in zip(self.meters, self.queues, strict=True):
            drops = meter.limit * elapsed
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
            not amount or self.used(index) + amount <= meter.limit
            for index, (meter, amount) in enumerate(zip(self.meters, amounts, strict=True))
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


async def test_a_peek_at_counters_that_are_not_seeded_names_them(store):
    limits = [meter(1, Window.MINUTE), meter(1, Window.DAY)]
    with pytest.raises(Unseeded) as caught:
        await store.store.peek(TENANT, limits)
    assert list(caught.value.meters) == limits[1:]


@pytest_asyncio.fixture
async def shared(redis_port, clock) -> AsyncIterator[RedisQuotaStore]:
    async with Redis(port=redis_port) as client:
        yield RedisQuotaStore(
            client, prefix=next(_PREFIXES), clock=clock, timeout=timedelta(seconds=20)
        )


async def used(store: RedisQuotaStore, *limits: Meter) -> list[int]:
    return [reading.used for reading in await store.peek(TENANT, limits)]


async def test_a_counter_starts_with_what_the_ledger_knows_beside_what_was_restored(shared, clock):
    tokens, slots = meter(100, Window.DAY, Unit.TOKENS), meter(9, Window.CONCURRENT)
    clock.now -= 3600  # of one day
    for name in ("open", "settled", "booked"):
        hold = Hold(TENANT, name, [tokens, slots], [10, 1], MINUTE, name.encode())
        await (shared.book(hold) if name == "booked" else shared.restore(hold))
    assert await shared.settle(TENANT, "settled", [7, 1])
    asked: list[list[str]] = []

    async def consumed(apart) -> int:
        asked.append(sorted(apart))
        if len(asked) == 1:  # another gateway is late
            await shared.restore(Hold(TENANT, "late", [tokens, slots], [1, 1], MINUTE))
        return 40

    await shared.seed(TENANT, tokens, consumed)
    await shared.seed(TENANT, tokens, consumed)  # it is seeded
    assert asked == [["booked", "open", "settled"], ["booked", "late", "open", "settled"]]
    assert await used(shared, tokens, slots) == [40 + 10 + 7 + 10 + 1, 2]
    assert await shared.settle(TENANT, "open", [0, 0])
    assert await used(shared, tokens, slots) == [58, 1]


async def test_a_lease_that_passed_is_had_back_unless_it_was_claimed(shared, clock):
    slots, minute = meter(2, Window.CONCURRENT), meter(100, Window.MINUTE, Unit.TOKENS)
    claimed, running = (
        Hold(TENANT, name, [slots, minute], [1, 5], MINUTE, b"note") for name in ("a", "b")
    )
    for hold in (claimed, running):
        await shared.reserve(hold)
    clock.now += 61
    assert await used(shared, slots) == [0]
    assert await shared.claim(TENANT, "a") == b"note"
    with pytest.raises(NotFound):
        await shared.renew(running, grow=False)
    grown = Hold(TENANT, "b", [slots, minute], [1, 8], MINUTE, b"other")
    assert [await shared.restore(hold) for hold in (claimed, grown)] == [False, True]
    assert await used(shared, slots, minute) == [1, 3]  # what it had before has drained
    assert not await shared.lapsed(TENANT)
    found = await shared.find(TENANT, "b")
    assert (found.note, found.left) == (b"other", MINUTE)
    assert await shared.settle(TENANT, "b", [1, 8])
    assert not await shared.restore(grown)


async def test_a_store_that_is_away_says_so(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    client = Redis(port=port)
    gone = RedisQuotaStore(client)
    with pytest.raises(Unavailable) as caught:
        await gone.reserve(Hold(TENANT, "a", [meter(1)], [1], MINUTE))
    assert caught.value.reason == "QUOTA_STORE_AWAY"
    with redis_server(port, tmp_path), pytest.raises(Unseeded):
        await gone.reserve(Hold(TENANT, "a", [meter(1)], [1], MINUTE))
    with redis_server(port, tmp_path):  # another one, which has never seen the script
        await client.connection_pool.disconnect()
        patient = Counted(RedisQuotaStore(client, timeout=timedelta(seconds=20)))
        await patient.reserve("a", [meter(1)], [1])
        await client.script_flush()
        with pytest.raises(QuotaExceeded):
            await patient.reserve("b", [meter(1)], [1])
    await client.aclose()


async def test_on_the_servers_own_clock_exactly_the_limit_is_admitted(redis_port):
    clients = [
        Redis.from_pool(BlockingConnectionPool(port=redis_port, max_connections=32, timeout=30))
        for _ in range(2)
    ]
    stores = [
        Counted(RedisQuotaStore(client, prefix="own", timeout=timedelta(seconds=30)))
        for client in clients
    ]
    limits = [meter(500, Window.DAY), meter(10_000, Window.MINUTE, Unit.TOKENS)]

    async def one(number: int) -> int:
        try:
            await stores[number % 2].reserve(str(number), limits, [1, 3])
        except QuotaExceeded:
            return 0
        return 1

    assert sum(await asyncio.gather(*map(one, range(2000)))) == 500
    for client in clients:
        await client.aclose()
