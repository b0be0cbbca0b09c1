"""What only a quota store of several gateways promises: restoring, claiming, being away."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from quota_stores import MINUTE, PATIENT, TENANT, Counted, meter
from redis.asyncio import Redis

from atrium_common.errors import NotFound, QuotaExceeded, Unavailable
from atrium_gateway.quota.limits import Meter, Unit, Window
from atrium_gateway.quota.redis_calls import open_redis
from atrium_gateway.quota.redis_store import RedisQuotaStore
from atrium_gateway.quota.store import Hold, Unseeded
from atrium_gateway.testing.servers import redis_server


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


async def test_a_store_that_is_away_says_so():
    asked = Hold(TENANT, "a", [meter(1)], [1], MINUTE)
    with redis_server() as server:
        server.kill()
        async with Redis.from_url(server.url) as client:
            store = RedisQuotaStore(client, timeout=PATIENT)
            for _ in range(2):
                with pytest.raises(Unavailable) as caught:
                    await store.reserve(asked)
                assert caught.value.reason == "QUOTA_STORE_AWAY"
                server.start()  # another one, which has never seen the script
                with pytest.raises(Unseeded):
                    await store.reserve(asked)
                server.kill()


async def test_on_the_servers_own_clock_exactly_the_limit_is_admitted(quota_redis):
    limits = [meter(250, Window.DAY), meter(10_000, Window.MINUTE, Unit.TOKENS)]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(open_redis(quota_redis.url)) for _ in range(2)]
        stores = [Counted(RedisQuotaStore(each, prefix="own", timeout=PATIENT)) for each in clients]

        async def one(number: int) -> int:
            try:
                await stores[number % 2].reserve(str(number), limits, [1, 3])
            except QuotaExceeded:
                return 0
            return 1

        assert sum(await asyncio.gather(*map(one, range(1000)))) == 250
