"""The Redis store's script: one command a call, in a cluster, after a flush, with a full memory."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import ResponseError

from atrium_common.errors import QuotaExceeded, Unavailable
from atrium_gateway.quota import redis_store
from atrium_gateway.quota.limits import Meter, Unit, Window
from atrium_gateway.quota.redis_calls import RedisCalls
from atrium_gateway.quota.redis_store import RedisQuotaStore
from atrium_gateway.quota.store import Hold, Unseeded
from atrium_gateway.testing.servers import RedisServer, redis_server

MINUTE = timedelta(minutes=1)
PATIENT = timedelta(seconds=20)
_PREFIXES = (f"script{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A node that has all slots of its cluster: it refuses what a larger one would."""
    with redis_server(options=("--cluster-enabled", "yes")) as running:
        yield running


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(server.url)
    info = await client.execute_command("CLUSTER INFO")
    if info["cluster_slots_assigned"] == "0":
        await client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16_383)
    async with asyncio.timeout(20):
        while (await client.execute_command("CLUSTER INFO"))["cluster_state"] != "ok":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    yield client
    await client.aclose()


@pytest.fixture
def store(redis: Redis) -> RedisQuotaStore:
    return RedisQuotaStore(redis, prefix=next(_PREFIXES), timeout=PATIENT)


def meters(tenant: str, amount: int = 1000) -> list[Meter]:
    """A limit of every window, some of the tenant and some of a key."""
    return [
        Meter(
            key=f"{tenant}:{window}",
            capability="*",
            unit=Unit.REQUESTS if window is Window.CONCURRENT else Unit.TOKENS,
            window=window,
            limit=amount,
            scale=1,
            scope="",
        )
        for window in Window
    ]


def hold(name: str, tenant: str = "acme", *, each: int = 1, amount: int = 1000) -> Hold:
    limits = meters(tenant, amount)
    return Hold(tenant, name, limits, [each] * len(limits), MINUTE, b"note")


async def seeded(store: RedisQuotaStore, tenant: str = "acme") -> None:
    async def nothing(apart) -> int:
        return 0

    for meter in meters(tenant):
        if meter.window not in (Window.MINUTE, Window.CONCURRENT):
            await store.seed(tenant, meter, nothing)


async def used(store: RedisQuotaStore, tenant: str = "acme") -> set[int]:
    return {reading.used for reading in await store.peek(tenant, meters(tenant))}


async def test_each_call_is_one_command_however_many_limits(store, redis, monkeypatch):
    await seeded(store)
    await store.reserve(hold("first"))  # names the tenant, once in a while
    sent: list[object] = []
    line = store._calls._line
    call, plain = line.call, redis.execute_command

    def noted(*command: object):
        sent.append(command[0])
        return call(*command)

    def noted_plain(*command: object, **options: object):
        sent.append(command[0])
        return plain(*command, **options)

    monkeypatch.setattr(line, "call", noted)
    monkeypatch.setattr(redis, "execute_command", noted_plain)
    await store.reserve(hold("a"))
    await store.renew(hold("a", each=3), grow=True)
    await store.settle("acme", "a", [2] * len(Window), note=b"end")
    await store.confirm("acme", ["a"])
    assert sent == ["EVALSHA"] * 4


async def test_a_cluster_keeps_each_tenant_in_a_slot_and_the_script_stays_there(store, redis):
    with pytest.raises(ResponseError, match="same slot"):
        await redis.eval("return 1", 2, "{acme}:a", "{globex}:a")
    for tenant in ("acme", "globex"):
        with pytest.raises(Unseeded):
            await store.reserve(hold("early", tenant))
        await store.restore(hold("before", tenant))
        await seeded(store, tenant)
        for name in ("kept", "claimed", "settled", "void"):
            await store.reserve(hold(name, tenant))
        await store.renew(hold("kept", tenant, each=4), grow=True)
        await store.renew(hold("kept", tenant), grow=False)
        assert await store.settle(tenant, "settled", [2] * len(Window), note=b"end")
        await store.void(tenant, "void")
        await store.book(hold("booked", tenant))
        assert (await store.find(tenant, "settled")).note == b"end"
        assert await store.claim(tenant, "claimed") is None
        await store.confirm(tenant, ["settled"])
        assert await store.lapsed(tenant) == []
    assert await store.tenants()
    assert await store.generation()
    names = [name.decode() async for name in redis.scan_iter(f"{store._prefix}:*")]
    acme, globex = (
        {key_slot(name.encode()) for name in names if f"{{{tenant}}}" in name}
        for tenant in ("acme", "globex")
    )
    assert len(acme) == len(globex) == 1 != len(acme | globex)


async def test_a_key_of_another_tenant_is_refused_by_the_server(store, redis):
    await seeded(store)
    await store.reserve(hold("a"))
    held = f"{store._prefix}:{{acme}}:held:a"
    own = (await redis.hget(held, "k")).decode()
    await redis.hset(held, "k", own.replace("{acme}", "{globex}"))
    with pytest.raises(Unavailable):
        await store.settle("acme", "a", [0] * len(Window))
    await redis.hset(held, "k", own)
    assert await store.settle("acme", "a", [0] * len(Window))


async def test_scripts_that_are_flushed_while_many_ask_change_nothing(store, redis):
    await seeded(store)

    async def one(number: int) -> bool:
        if number % 40 == 0:
            await redis.script_flush()
        try:
            await store.reserve(hold(str(number), amount=100))
        except QuotaExceeded:
            return False
        return True

    assert sum(await asyncio.gather(*map(one, range(400)))) == 100


async def test_windows_are_those_of_the_servers_clock(store, monkeypatch):
    day = 86_400
    ahead = time.time() + day * 3
    monkeypatch.setattr(redis_store.time, "time", lambda: ahead)
    await seeded(store)
    states = await store.reserve(hold("a"))
    monkeypatch.undo()
    ends = {state.name: state.reset_time for state in states}
    assert len(states) == len(Window)
    tomorrow = datetime.now(UTC) + timedelta(days=1, minutes=1)
    assert sum(state.reset_time <= tomorrow for state in states) >= 3, ends
    assert await used(store) == {1}


async def test_a_full_memory_refuses_new_work_whole_and_lets_what_runs_end(store, redis):
    await seeded(store)
    for name in ("running", "late"):
        await store.reserve(hold(name))
    await redis.config_set("maxmemory", "1")
    try:
        for _ in range(10):  # which is no reason to stop asking
            with pytest.raises(Unavailable):
                await store.reserve(hold("new"))
        await store.renew(hold("running", each=3), grow=True)
        assert await store.settle("acme", "running", [2] * len(Window), note=b"end")
        await store.confirm("acme", ["running"])
        await store.void("acme", "late")
        calendar = await store.peek("acme", meters("acme")[1:5])
    finally:
        await redis.config_set("maxmemory", "0")
    assert {reading.used for reading in calendar} == {2}
    assert await store.find("acme", "new") is None
    assert await store.lapsed("acme") == []
    await store.reserve(hold("new"))


async def test_what_stays_in_the_store_has_an_end(store, redis):
    for tenant, amount in (("acme", 1000), ("barred", 0)):
        await seeded(store, tenant)
        for name in ("settled", "open"):
            await store.reserve(hold(name, tenant, each=int(amount > 0), amount=amount))
        await store.settle(tenant, "settled", [int(amount > 0)] * len(Window))
        names = [name async for name in redis.scan_iter(f"{store._prefix}:{{{tenant}}}:*")]
        ends = {name.decode().rpartition(":")[2]: await redis.ttl(name) for name in names}
        assert 39 * 86_400 < ends.pop("total") <= 40 * 86_400  # all time has none
        assert ends.keys() >= {"minute", "hour", "day", "month", "leases", "open", "settled"}
        assert all(0 < seconds <= 33 * 86_400 for seconds in ends.values()), ends
        assert ends.get("concurrent", 0) <= 60


async def test_what_is_only_looked_at_has_an_end_and_begins_again_after_it(store, redis):
    await seeded(store)
    assert await used(store) == {0}
    names = [name async for name in redis.scan_iter(f"{store._prefix}:{{acme}}:*")]
    assert len(names) == 4
    assert all([0 < await redis.ttl(name) <= 40 * 86_400 for name in names])
    await redis.delete(f"{store._prefix}:{{acme}}:acme:total")  # nobody took of it for long
    with pytest.raises(Unseeded) as caught:
        await store.peek("acme", meters("acme"))
    assert [each.window for each in caught.value.meters] == [Window.TOTAL]


async def test_a_store_that_fails_again_and_again_is_asked_once_a_second(redis, monkeypatch):
    calls = RedisCalls(redis, timeout=PATIENT)
    now, asked = [100.0], 0
    works = False

    async def call(*command: object) -> list[bytes]:
        nonlocal asked
        asked += 1
        if not works:
            raise ConnectionResetError
        return [b"held"]

    monkeypatch.setattr(calls._line, "call", call)
    monkeypatch.setattr(calls._breaker, "_clock", lambda: now[0])

    async def fails(times: int) -> int:
        before = asked
        for _ in range(times):
            with pytest.raises(Unavailable) as caught:
                await calls.script(["k"], ["peek"])
            assert caught.value.reason == "QUOTA_STORE_AWAY"
        return asked - before

    assert await fails(20) == 5
    now[0] += 0.9
    assert await fails(10) == 0
    now[0] += 0.2
    assert await fails(10) == 1
    works = True
    assert await fails(3) == 0
    now[0] += 1
    assert await calls.script(["k"], ["peek"]) == [b"held"]
    assert await calls.script(["k"], ["peek"]) == [b"held"]
