"""A gateway may die between the quota store and its own disk: another writes the event, once."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from atrium_common.domain import Usage
from atrium_common.errors import NotFound, Unavailable
from atrium_gateway.admission import Outcome
from atrium_gateway.auth.principal import Principal
from atrium_gateway.books import Books, Held
from atrium_gateway.core import Core, open_core
from atrium_gateway.quota.in_process import InProcessQuotaStore
from atrium_gateway.quota.redis_store import RedisQuotaStore
from atrium_gateway.quota.resilient import ResilientQuotaStore
from atrium_gateway.quota.store import Hold
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.sweeper import Sweeper
from atrium_gateway.tenants.domain import Tenant
from atrium_gateway.testing.servers import RedisServer, redis_server
from atrium_gateway.usage.billing import close_record
from atrium_gateway.usage.price import PriceBook
from atrium_gateway.usage.records import EXPIRED, OpenRecord, Units, UsageEvent

TENANT = "acme"
ACME = Principal(tenant=TENANT, subject="user")
LEASE = timedelta(seconds=30)
PATIENT = timedelta(seconds=20)
"""A machine under load must not look like a store that is away."""
_PREFIXES = (f"ends{number}" for number in itertools.count())


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(server.url)
    yield client
    await client.aclose()


@pytest.fixture
def store(redis: Redis, clock: Clock) -> RedisQuotaStore:
    return RedisQuotaStore(redis, prefix=next(_PREFIXES), clock=clock, timeout=PATIENT)


def hold(name: str) -> Hold:
    return Hold(TENANT, name, (), (), LEASE, b"opened")


async def test_an_end_with_a_note_lapses_until_it_is_confirmed(store, clock):
    for name in ("settled", "claimed", "open"):
        await store.reserve(hold(name))
    clock.now += 31
    assert await store.restore(hold("open"))
    assert await store.settle(TENANT, "settled", (), note=b"end")
    assert await store.claim(TENANT, "claimed", note=b"end") == b"opened"
    assert await store.lapsed(TENANT) == []  # who closed them has time to write
    clock.now += 5
    assert await store.lapsed(TENANT) == ["claimed", "settled"]
    assert await store.claim(TENANT, "settled", note=b"other") is None
    await store.void(TENANT, "claimed")
    assert not await store.restore(hold("settled"))
    assert await store.lapsed(TENANT) == ["claimed", "settled"]
    assert await store.tenants() == [TENANT]
    for _ in range(2):
        await store.confirm(TENANT, ["claimed", "open", "settled", "never was"])
        assert await store.lapsed(TENANT) == []
        assert (await store.find(TENANT, "settled")).note == b"end"
        assert (await store.find(TENANT, "claimed")).note == b"end"
    clock.now += 31
    assert await store.lapsed(TENANT) == ["open"]


async def test_an_end_is_kept_a_day_and_once_confirmed_as_long_as_somebody_may_ask(store, redis):
    await store.reserve(hold("a"))
    await store.settle(TENANT, "a", (), note=b"end")
    (key,) = [name async for name in redis.scan_iter(f"{store._prefix}:*held:a")]
    assert await redis.ttl(key) > 86_000
    await store.confirm(TENANT, ["a"])
    assert 100 < await redis.ttl(key) <= 120


async def test_what_was_booked_after_a_claim_lapses_no_more(store, clock):
    await store.reserve(hold("a"))
    clock.now += 31
    assert await store.claim(TENANT, "a", note=b"end")
    await store.book(hold("a"))
    clock.now += 31
    assert await store.lapsed(TENANT) == []


@pytest.fixture
async def cores(settings: GatewaySettings, server, redis, catalogue, clock):
    """Two gateways over one Redis, whose clock only the test moves."""
    await redis.flushall()
    url = GatewaySettings(quota_redis_url=server.url).quota_redis_url
    changes = {"quota_redis_url": url, "lease_seconds": 30.0, "quota_timeout_seconds": 20.0}
    changed = settings.model_copy(update=changes)
    async with AsyncExitStack() as stack:
        both = [
            await stack.enter_async_context(open_core(changed, catalogue=catalogue, clock=clock))
            for _ in range(2)
        ]
        await both[0].tenants.create_tenant(
            Tenant(
                id=TENANT,
                name=TENANT,
                blocked=False,
                unlimited=True,
                weight=1.0,
                limits=(),
                created_at=datetime.now(UTC),
            )
        )
        yield both


async def admit(core: Core) -> str:
    reservation = await core.admission.admit(
        ACME,
        capability="chat",
        model="m",
        estimate=Usage(input_tokens=100),
        request_id="r",
        method="m",
    )
    return reservation.id


async def settle(core: Core, reservation_id: str) -> None:
    usage = Usage(input_tokens=7)
    await core.admission.settle(reservation_id, usage, Outcome.COMPLETED, tenant=TENANT)


async def booked(*cores: Core) -> tuple[list[tuple[str, int]], int]:
    """All events, and how many requests the roll-ups count."""
    for core in cores:
        await core.ledger.flush()
    now, hour = datetime.now(UTC), timedelta(hours=1)
    found = await cores[0].reports.events(TENANT, start=now - hour, end=now + hour)
    sums = await cores[0].reports.totals(TENANT, start=now - hour, end=now + hour)
    return [(event.outcome, event.totals.input_tokens) for event in found], sums.requests


async def looks(core: Core, clock: Clock) -> None:
    """Time for the grace to pass, and for two looks at what others left."""
    for _ in range(4):
        clock.now += 3
        await core.admission.expire()


def kill(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this gateway reaches its disk any more, and it knows nothing."""

    async def dead(events: Sequence[UsageEvent]) -> None:
        raise Unavailable("Dead.")

    monkeypatch.setattr(core.ledger, "close", dead)
    core.admission._books.open.clear()


async def test_a_settlement_whose_gateway_dies_before_its_disk_has_it_is_written_by_another(
    cores, clock, monkeypatch
):
    dying, staying = cores
    reservation = await admit(dying)
    original = dying.admission._books.open[reservation]
    kill(dying, monkeypatch)
    dying.admission._books.open[reservation] = original
    with pytest.raises(Unavailable):
        await settle(dying, reservation)
    await looks(staying, clock)
    assert await booked(staying) == ([("completed", 7)], 1)


@pytest.mark.parametrize("knows", [True, False], ids=["its owner", "any other"])
async def test_a_claim_whose_gateway_dies_before_its_disk_has_it_is_written_by_another(
    cores, clock, monkeypatch, knows
):
    owner, dying = cores
    reservation = await admit(owner)
    held = owner.admission._books.open.pop(reservation)
    kill(dying, monkeypatch)
    clock.now += 31
    event = close_record(held.record, held.record.reserved, EXPIRED, ended_ms=1, prices=PriceBook())
    with pytest.raises(Unavailable):
        await dying.admission._books.claim([event])
    if knows:
        owner.admission._books.open[reservation] = held
    await looks(owner, clock)
    assert await booked(owner) == ([("expired", 100)], 1)
    assert owner.admission.open_reservations == 0


async def test_what_another_writes_for_a_gateway_that_is_only_slow_counts_once(
    cores, clock, monkeypatch
):
    slow, other = cores
    reservation = await admit(slow)
    write, settled, goes_on = slow.ledger.close, asyncio.Event(), asyncio.Event()

    async def late(events: Sequence[UsageEvent]) -> None:
        settled.set()
        await goes_on.wait()
        await write(events)

    monkeypatch.setattr(slow.ledger, "close", late)
    settling = asyncio.create_task(settle(slow, reservation))
    await settled.wait()
    await looks(other, clock)
    assert await booked(other) == ([("completed", 7)], 1)
    goes_on.set()
    await settling
    assert await booked(other, slow) == ([("completed", 7)], 1)


async def test_a_record_that_cannot_be_read_holds_up_no_other(cores, clock, redis):
    dying, staying = cores
    spoilt, _ = [await admit(dying) for _ in range(2)]
    dying.admission._books.open.clear()
    await redis.hset(f"atrium:{{{TENANT}}}:held:{spoilt}", "n", b"of another version")
    clock.now += 31
    await looks(staying, clock)
    assert await booked(staying) == ([("expired", 100)], 1)
    assert await staying.admission._books.shared.lapsed(TENANT) == [spoilt]


class Killed(Exception):
    """The process ends here."""


class Disks:
    """The ledgers of all gateways, as far as these tests need one."""

    def __init__(self) -> None:
        self.written: list[UsageEvent] = []


class OneDisk:
    """What one process writes; it may be killed before, or have to wait."""

    def __init__(self, disks: Disks) -> None:
        self._disks = disks
        self.dies = False
        self.waits: asyncio.Event | None = None

    async def close(self, events: Sequence[UsageEvent]) -> None:
        if self.dies:
            raise Killed
        if self.waits is not None:
            await self.waits.wait()
        self._disks.written += events

    def forget(self, reservation_id: str) -> None:
        pass

    async def synced(self) -> None:
        pass

    async def closed(self, ids: Sequence[str]) -> set[str]:
        return {event.id for event in self._disks.written} & set(ids)


class Gateway:
    """One process, which a new one follows once it is killed."""

    def __init__(self, shared: RedisQuotaStore, disks: Disks, clock: Clock) -> None:
        self._parts = (shared, disks, clock)
        self._slow: list[tuple[asyncio.Event, asyncio.Task[None]]] = []
        self.restart()

    def restart(self) -> None:
        shared, disks, self._clock = self._parts
        self._disk = OneDisk(disks)
        self._store = ResilientQuotaStore(
            shared,
            make_local=lambda: InProcessQuotaStore(clock=self._clock),
            falls_back=lambda _: False,
        )
        self.books = Books(
            store=self._store, shared=self._store, ledger=self._disk, clock=self._clock
        )
        self._sweeper = Sweeper(self.books, prices=PriceBook(), clock=self._clock)

    async def settle(self, name: str) -> None:
        books = self.books
        held = books.open.pop(name, None)
        if held is None:
            try:
                held = await books.elsewhere(name, TENANT, closed=True)
            except NotFound:
                return
        if held is not None:
            ended = int(self._clock() * 1000)
            event = close_record(
                held.record, Units(7), "completed", ended_ms=ended, prices=PriceBook()
            )
            await books.close(held, [event], ())

    async def sweep(self, _: str) -> None:
        await self._sweeper.sweep()

    async def killed(self, act: Callable[[str], Awaitable[None]], name: str) -> None:
        """Does it, and is killed before its disk has what it writes."""
        self._disk.dies = True
        with suppress(Killed):
            await act(name)
        self.restart()

    async def slowly(self, name: str) -> None:
        """Begins to settle; the disk takes its time until `finish`."""
        goes_on = self._disk.waits = asyncio.Event()
        self._slow.append((goes_on, asyncio.create_task(self.settle(name))))
        done, _ = await asyncio.wait([self._slow[-1][1]], timeout=0.01)
        self._disk.waits = None if done else goes_on

    async def finish(self) -> None:
        self._disk.waits = None
        for goes_on, task in self._slow:
            goes_on.set()
            await task
        self._slow.clear()


STEPS = ["settle", "settle, killed", "settle slowly", "finish", "sweep", "sweep, killed", "restart"]
PAUSES = [1, 3, 6, 31]


async def do(gateway: Gateway, step: str, name: str) -> None:
    if step == "restart":
        gateway.restart()
    elif step == "finish":
        await gateway.finish()
    elif step == "settle slowly":
        await gateway.slowly(name)
    else:
        act = gateway.settle if step.startswith("settle") else gateway.sweep
        await (gateway.killed(act, name) if step.endswith("killed") else act(name))


@given(
    steps=st.lists(
        st.one_of(st.sampled_from(PAUSES), st.tuples(st.integers(0, 1), st.sampled_from(STEPS))),
        max_size=14,
    )
)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_whatever_happens_in_whatever_order_one_reservation_has_one_end(redis, steps):
    clock, disks = Clock(), Disks()
    shared = RedisQuotaStore(redis, prefix=next(_PREFIXES), clock=clock, timeout=PATIENT)
    gateways = [Gateway(shared, disks, clock) for _ in range(2)]
    record = OpenRecord("id", TENANT, "s", "chat", "m", "m", "r", 0, Units(100))
    held = Held(record, (), (), LEASE.total_seconds())
    await gateways[0].books.reserve(held, paid=False)
    held.expires = clock() + held.lease
    gateways[0].books.open["id"] = held
    for step in steps:
        if isinstance(step, int):
            clock.now += step
        elif gateways[step[0]]._disk.waits is None or step[1] in ("finish", "restart"):
            await do(gateways[step[0]], step[1], "id")
    for gateway in gateways:
        await gateway.finish()
    for _ in range(12):  # a lease, the grace, and two looks for each
        clock.now += 5
        for gateway in gateways:
            await gateway.sweep("id")
    ends = {(event.id, event.outcome, event.units, event.ended_ms) for event in disks.written}
    assert {(name, outcome, units) for name, outcome, units, _ in ends} in (
        {("id", "completed", Units(7))},
        {("id", "expired", Units(100))},
    )
    assert len(ends) == 1
    assert await shared.lapsed(TENANT) == []
