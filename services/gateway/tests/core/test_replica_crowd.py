"""Ten thousand at once, two gateway processes, one Redis: exactly the limit is admitted."""

import asyncio
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atrium_common.admission_client import AdmissionClient, TenantCaller
from atrium_common.channels import open_channel
from atrium_common.domain import Capability, Usage
from atrium_common.errors import QuotaExceeded
from atrium_common.service import WorkEstimate
from atrium_gateway.auth.principal import Principal
from atrium_gateway.core import open_tenants
from atrium_gateway.quota.counters import window_bounds
from atrium_gateway.quota.limits import LEDGERED, Limit, Meter, Unit, Window
from atrium_gateway.quota.policy import LimitPolicy
from atrium_gateway.quota.redis_calls import open_redis
from atrium_gateway.quota.redis_store import RedisQuotaStore
from atrium_gateway.quota.store import Hold, Unseeded
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.tenants.domain import Tenant
from atrium_gateway.testing.servers import RedisServer, redis_server

NOON = datetime(2026, 3, 14, 12, 30, tzinfo=UTC).timestamp()
WORK = WorkEstimate(
    capability=Capability.CHAT,
    model="m",
    usage=Usage(
        input_tokens=3,
        output_tokens=4,
        input_audio=timedelta(seconds=2),
        characters=5,
        images=2,
        millimegapixel_steps=3000,
        pages=6,
    ),
)
EACH = {
    Unit.REQUESTS: 1,
    Unit.TOKENS: 7,
    Unit.AUDIO_SECONDS: 2,
    Unit.CHARACTERS: 5,
    Unit.IMAGES: 2,
    Unit.MEGAPIXEL_STEPS: 3,
    Unit.PAGES: 6,
    Unit.GPU_MILLISECONDS: 1,
    Unit.COST: 4,
}
"""What `WORK` reserves of each unit; the catalogue of `replica_process.py` prices it so."""
ADMITTED = dict.fromkeys(Window, 166) | {Window.CONCURRENT: 170}
"""How many have room, in a tenant of each window; a thousand in all."""


PATIENT = timedelta(seconds=30)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@contextmanager
def gateway(folder: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    script = Path(__file__).with_name("replica_process.py")
    process = subprocess.Popen(
        [sys.executable, script, folder, url, str(NOON)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def number_from(process: subprocess.Popen[str]) -> int:
    """The next line that is a number; the others are its log."""
    return int(next(line for line in process.stdout if line.strip().isdigit()))


def tenant(window: Window) -> Tenant:
    """One whose limits of every unit over a window have room for the same number."""
    units = [Unit.REQUESTS] if window is Window.CONCURRENT else list(Unit)
    return Tenant(
        id=window.value,
        name="",
        blocked=False,
        unlimited=False,
        weight=1.0,
        limits=tuple(Limit("chat", unit, window, EACH[unit] * ADMITTED[window]) for unit in units),
        created_at=datetime.now(UTC),
    )


async def test_of_ten_thousand_at_two_gateways_exactly_the_limit_is_admitted(server, tmp_path):
    async with open_tenants(GatewaySettings(state_dir=tmp_path)) as (tenants, _):
        for window in Window:
            await tenants.create_tenant(tenant(window))
    with gateway(tmp_path, server.url) as first, gateway(tmp_path, server.url) as second:
        ports = [number_from(process) for process in (first, second)]
        channels = [open_channel(f"127.0.0.1:{port}", tls=None) for port in ports]
        clients = [
            AdmissionClient(
                channel, service_credential="a service credential", timeout=timedelta(minutes=1)
            )
            for channel in channels
        ]
        turns = asyncio.Semaphore(200)

        async def one(number: int) -> bool:
            async with turns:
                try:
                    await clients[number // len(Window) % 2].admit(
                        TenantCaller(list(Window)[number % len(Window)]),
                        WORK,
                        request_id=str(number),
                        method="/x/Y",
                    )
                except QuotaExceeded:
                    return False
            return True

        admitted = await asyncio.gather(*map(one, range(10_000)))
        for channel in channels:
            await channel.close(None)
        for process in (first, second):
            process.stdin.close()
        held = [number_from(process) for process in (first, second)]
    assert sum(admitted) == sum(held) == 1000
    assert min(held) > 0
    for number, window in enumerate(Window):
        assert sum(admitted[number :: len(Window)]) == ADMITTED[window]
    async with open_redis(server.url) as redis:
        store = RedisQuotaStore(redis, clock=lambda: NOON, timeout=PATIENT)
        policy = LimitPolicy(default_amount=None, default_window=Window.HOUR)
        for window in Window:
            who = Principal(tenant=window, subject="u")
            meters = policy.meters(tenant(window), who, "chat", "m")
            readings = await store.peek(window, meters)
            # Each is full, none is over.
            assert [each.used for each in readings] == [meter.limit for meter in meters]


_PREFIXES = (f"crowd{number}" for number in itertools.count())


@pytest.fixture
async def stores(server: RedisServer) -> AsyncIterator[object]:
    """Makes two stores, as two gateways have them, that count together over a clock."""
    clients = [open_redis(server.url) for _ in range(2)]

    def make(clock) -> list[RedisQuotaStore]:
        prefix = next(_PREFIXES)
        return [RedisQuotaStore(c, prefix=prefix, clock=clock, timeout=PATIENT) for c in clients]

    yield make
    for client in clients:
        await client.aclose()


def meter(limit: int, window: Window, unit: Unit, key: str = "") -> Meter:
    return Meter(
        key=key or f"acme:{unit}:{window}",
        capability="chat",
        unit=unit,
        window=window,
        limit=limit,
        scale=unit.scale,
        scope="tenant:acme",
    )


async def nothing(apart) -> int:
    """What a ledger without events says."""
    return 0


async def reserve(store, key: str, meters, amounts) -> bool:
    for _ in range(2):
        try:
            await store.reserve(Hold("acme", key, meters, amounts, timedelta(days=40)))
        except Unseeded as err:
            for each in err.meters:
                await store.seed("acme", each, nothing)
        except QuotaExceeded:
            return False
        else:
            return True
    raise AssertionError("seeded, and still not seeded")


async def grow(store, key: str, meters, amounts) -> bool:
    try:
        for _ in range(2):
            try:
                await store.renew(Hold("acme", key, meters, amounts, timedelta(days=40)), grow=True)
            except Unseeded as err:
                for each in err.meters:
                    await store.seed("acme", each, nothing)
    except QuotaExceeded:
        return False
    return True


@pytest.mark.parametrize("window", Window)
async def test_in_every_unit_and_window_exactly_the_limit_is_admitted(stores, window):
    for unit in Unit:
        both = stores(lambda: NOON)
        limits = [meter(10, window, unit), meter(10_000, Window.MONTH, Unit.REQUESTS, "acme:wide")]
        asked = (reserve(both[n % 2], str(n), limits, [1, 1]) for n in range(30))
        assert sum(await asyncio.gather(*asked)) == 10, (unit, window)


STEP = st.tuples(
    st.sampled_from(["reserve", "reserve", "settle", "grow", "pass"]),
    st.integers(0, 1),
    st.lists(st.integers(0, 9), min_size=3, max_size=3),
    st.integers(0, 40_000_000),
)
POLICY = st.lists(
    st.tuples(
        st.sampled_from([*sorted(LEDGERED), Window.CONCURRENT]),
        st.sampled_from(Unit),
        st.integers(0, 30),
    ),
    min_size=1,
    max_size=3,
)


class Sums:
    """The simplest model of calendar windows and slots: all that was taken, summed anew."""

    def __init__(self, meters: list[Meter]) -> None:
        self.meters = meters
        self.taken: list[list] = []  # [id, meter, ms, amount]
        self.open: set[str] = set()

    def used(self, index: int, now: int) -> int:
        window = self.meters[index].window
        if window is Window.CONCURRENT:
            return len({key for key, at, _, amount in self.taken if at == index and amount
                        and key in self.open})  # fmt: skip
        here = window_bounds(window, now)
        return sum(
            amount
            for _, at, when, amount in self.taken
            if at == index and window_bounds(window, when) == here
        )

    def fits(self, amounts: list[int], now: int) -> bool:
        return all(
            not amount or self.used(index, now) + amount <= self.meters[index].limit
            for index, amount in enumerate(amounts)
        )

    def take(self, key: str, amounts: list[int], now: int) -> None:
        self.open.add(key)
        self.taken += [[key, index, now, amount] for index, amount in enumerate(amounts)]

    def missing(self, key: str, amounts: list[int]) -> list[int]:
        held = [0] * len(amounts)
        for each, index, _, amount in self.taken:
            if each == key:
                held[index] += amount
        return [max(0, amount - has) for amount, has in zip(amounts, held, strict=True)]

    def settle(self, key: str, actual: list[int]) -> None:
        self.open.discard(key)
        for index, left in enumerate(actual):
            pieces = [item for item in self.taken if item[0] == key and item[1] == index]
            rest = left
            for piece in pieces[:-1]:
                piece[3] = min(rest, piece[3])
                rest -= piece[3]
            pieces[-1][3] = rest


@given(POLICY, st.lists(STEP, max_size=40))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_any_policy_and_interleaving_admits_what_the_model_admits(stores, policy, steps):
    now = NOON
    both = stores(lambda: now)
    # A slot is one whatever is asked for; amounts of the others are free.
    meters = [meter(limit, window, unit, f"m{n}") for n, (window, unit, limit) in enumerate(policy)]
    slots = [each.window is Window.CONCURRENT for each in meters]
    model = Sums(meters)
    open_: list[str] = []
    for number, (action, who, drawn, passes) in enumerate(steps):
        ms = int(now * 1000)
        amounts = [1 if slot else n for n, slot in zip(drawn, slots, strict=False)]
        if action == "reserve":
            fits = model.fits(amounts, ms)
            assert await reserve(both[who], str(number), meters, amounts) is fits
            if fits:
                model.take(str(number), amounts, ms)
                open_.append(str(number))
        elif action == "pass" or not open_:
            now += passes / 1000
        else:
            key = open_[passes % len(open_)]
            if action == "grow":
                more = model.missing(key, amounts)
                fits = model.fits(more, ms)
                assert await grow(both[who], key, meters, amounts) is fits
                if fits:
                    model.take(key, more, ms)
            else:
                open_.remove(key)
                assert await both[who].settle("acme", key, amounts)
                assert not await both[1 - who].settle("acme", key, amounts)
                model.settle(key, amounts)
    for key in open_:
        assert await both[0].settle("acme", key, [0] * len(meters))
        model.settle(key, [0] * len(meters))
    left = await asyncio.gather(
        *(reserve(both[n % 2], f"last{n}", meters, [int(s) for s in slots]) for n in range(2))
    )
    assert all(left) is model.fits([2 * int(s) for s in slots], int(now * 1000))
