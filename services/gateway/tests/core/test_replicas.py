"""Gateways that share a Redis: one count, one event for each reservation, whoever closes it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from atrium_common.catalogue import Catalogue
from atrium_common.domain import Usage
from atrium_common.errors import NotFound, QuotaExceeded, Unavailable
from atrium_gateway.admission import Outcome
from atrium_gateway.auth.principal import Principal
from atrium_gateway.core import Core, open_core
from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.tenants.domain import Fallback, Tenant
from atrium_gateway.testing.servers import RedisServer, redis_server

HOUR = timedelta(hours=1)
ACME = Principal(tenant="acme", subject="user")


def tenant(*limits: Limit) -> Tenant:
    return Tenant(
        id="acme",
        name="acme",
        blocked=False,
        unlimited=False,
        weight=1.0,
        limits=limits,
        created_at=datetime.now(UTC),
    )


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(server.url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def together(settings: GatewaySettings, server: RedisServer, redis: Redis) -> GatewaySettings:
    return settings.model_copy(
        update={
            "quota_redis_url": GatewaySettings(quota_redis_url=server.url).quota_redis_url,
            "lease_seconds": 30.0,
            # Long: a machine under load must not look like a store that is away.
            "quota_timeout_seconds": 5.0,
        }
    )


@pytest.fixture
def gateways(together, catalogue):
    """Opens so many gateways, the first of which makes the tenant with its limits."""

    @asynccontextmanager
    async def opened(count: int, *limits: Limit, **changes: object):
        changed = together.model_copy(update=changes)
        async with AsyncExitStack() as stack:
            cores = [
                await stack.enter_async_context(open_core(changed, catalogue=catalogue))
                for _ in range(count)
            ]
            if await cores[0].tenants.tenant("acme") is None:
                await cores[0].tenants.create_tenant(tenant(*limits))
            yield cores

    return opened


async def admit(core: Core, tokens: int = 100):
    return await core.admission.admit(
        ACME,
        capability="chat",
        model="m",
        estimate=Usage(input_tokens=tokens),
        request_id="r",
        method="m",
    )


async def settle(core: Core, reservation, tokens: int, *by_model: Usage) -> None:
    await core.admission.settle(
        reservation.id, Usage(input_tokens=tokens), Outcome.COMPLETED, by_model, tenant="acme"
    )


@contextmanager
def away(server: RedisServer) -> Iterator[None]:
    """Redis stands still: it keeps all, and nobody gets an answer."""
    server._process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server._process.send_signal(signal.SIGCONT)


AWAY = {"quota_timeout_seconds": 0.25}
"""For tests that wait for an answer in vain."""


async def told(core: Core) -> bool:
    return not core.admission._books.shared.owed


async def events(*cores: Core):
    for core in cores:
        await core.ledger.flush()
    now = datetime.now(UTC)
    found = await cores[0].reports.events("acme", start=now - HOUR, end=now + HOUR)
    return sorted((event.outcome, event.totals.input_tokens) for event in found)


async def left(core: Core, unit: str = "tokens") -> int:
    """What a limit leaves, asked by a request that takes nothing of it."""
    reservation = await admit(core, 0)
    await core.admission.refund(reservation.id, "ASKED")
    return next(state.remaining for state in reservation.limits if state.unit == unit)


async def until(check, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not await check():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


TOKENS = Limit("chat", Unit.TOKENS, Window.MONTH, 1000)
SLOTS = Limit("chat", Unit.REQUESTS, Window.CONCURRENT, 2)


async def test_any_gateway_renews_settles_and_refunds_what_another_admitted(gateways):
    async with gateways(2, TOKENS) as (first, second):
        one, two, three = [await admit(first) for _ in range(3)]
        await second.admission.renew(one.id, Usage(input_tokens=700), tenant="acme")
        with pytest.raises(QuotaExceeded):
            await admit(first, 101)
        with pytest.raises(QuotaExceeded):
            await second.admission.renew(two.id, Usage(input_tokens=201), tenant="acme")
        await asyncio.gather(
            *(settle(core, one, 600 + number) for number, core in enumerate((second, first) * 3))
        )
        await second.admission.refund(two.id, "INVALID_ARGUMENT", tenant="acme")
        await settle(first, two, 999)
        await settle(first, three, 50)
        assert await left(second) == await left(first) == 350 - (await total(first, second) - 650)
        completed = [event for event in await events(first, second) if event[0] == "completed"]
        assert (completed[0], len(completed)) == (("completed", 50), 2)
        assert first.admission.open_reservations <= 2  # closed by the other; swept later


async def total(*cores: Core) -> int:
    return sum(tokens for outcome, tokens in await events(*cores) if outcome == "completed")


async def test_without_the_tenant_only_the_one_that_admitted_can_close(gateways):
    async with gateways(2, TOKENS) as (first, second):
        reservation = await admit(first)
        with pytest.raises(NotFound):
            await second.admission.settle(reservation.id, Usage(), Outcome.COMPLETED)
        with pytest.raises(NotFound):
            await second.admission.settle(
                reservation.id, Usage(), Outcome.COMPLETED, tenant="other"
            )
        await settle(second, reservation, 7)
        assert await events(first, second) == [("completed", 7)]


async def test_what_nobody_renews_ends_once_and_what_any_gateway_renews_lives(gateways):
    async with gateways(2, TOKENS, SLOTS, lease_seconds=1.5) as (first, second):
        kept, dropped = await admit(first, 10), await admit(first, 20)

        async def renew() -> None:
            while True:
                await second.admission.renew(kept.id, tenant="acme")
                await asyncio.sleep(0.2)

        beat = asyncio.create_task(renew())

        async def ended() -> bool:
            return ("expired", 20) in await events(first, second)

        await until(ended)
        beat.cancel()
        await settle(second, kept, 5)
        await settle(first, dropped, 1)
        assert await events(first, second) == [("completed", 5), ("expired", 20)]
        assert await left(first, "requests") == 1


async def test_a_gateway_that_is_back_asks_what_became_of_its_reservations(
    gateways, together, catalogue, redis
):
    async with gateways(1, TOKENS) as (staying,):
        async with open_core(together, catalogue=catalogue) as leaving:
            settled, living, lost = [await admit(leaving, 10 * n) for n in (1, 2, 3)]
            leaving.admission._books.open.clear()  # as a kill does
        await settle(staying, settled, 4)
        await redis.delete(f"atrium:{{acme}}:held:{lost.id}")
        async with open_core(together, catalogue=catalogue) as back:
            await until(lambda: have(back, 1))
            await settle(staying, living, 9)
            assert await events(staying, back) == [
                ("completed", 4),
                ("completed", 9),
                ("orphaned", 30),
            ]


async def have(core: Core, count: int) -> bool:
    return core.admission.open_reservations == count


async def test_after_a_loss_the_ledger_and_all_open_reservations_count_again(gateways, redis):
    async with gateways(2, TOKENS) as (first, second):
        await settle(first, await admit(first), 300)
        here, there = await admit(first, 200), await admit(second, 100)
        await redis.flushall()
        assert await left(first) == 400
        await settle(first, here, 150)
        await settle(second, there, 100)
        assert await left(second) == 450
        with pytest.raises(QuotaExceeded):
            await admit(second, 451)
        assert await total(first, second) == 550


async def test_what_settles_while_counters_are_rebuilt_is_counted_once(gateways, redis):
    async with gateways(2, TOKENS) as (first, second):
        await settle(first, await admit(first), 300)
        here, there, lost = await admit(first, 200), await admit(second), await admit(first)
        await redis.flushall()
        for core in (first, second):
            await core.admission._books.notice()
        by_model = Usage(model="m", input_tokens=40), Usage(model="other", input_tokens=20)
        await settle(second, here, 150)
        await settle(first, there, 60, *by_model)
        await redis.delete(f"atrium:{{acme}}:held:{lost.id}")  # of no gateway that had time
        await settle(first, lost, 7)
        assert await left(first) == 1000 - 300 - 150 - 60 - 100 - 7
        assert await left(second) == await left(first)
        assert await total(first, second) == 517


async def test_paid_work_is_refused_while_redis_is_away_whatever_may_be_counted_here(
    gateways, server, together
):
    models = [
        {"id": name, "service": "llm", "capabilities": ["chat"], "engine": "fake", **more}
        for name, more in (("m", {}), ("paid", {"cost": {"million_input_tokens": "1"}}))
    ]
    changed = together.model_copy(update=AWAY)

    async def ask(model: str, who: str = "acme"):
        return await core.admission.admit(
            Principal(tenant=who, subject="user"),
            capability="chat",
            model=model,
            estimate=Usage(input_tokens=1),
            request_id="r",
            method="m",
        )

    async with open_core(changed, catalogue=Catalogue.model_validate({"models": models})) as core:
        await core.tenants.create_tenant(tenant(Limit("*", Unit.REQUESTS, Window.MINUTE, 100)))
        unlimited = replace(tenant(), id="free", name="free", unlimited=True)
        await core.tenants.create_tenant(unlimited)
        for who in ("acme", "free"):
            await settle(core, await ask("paid", who), 1)
        with away(server):
            for who in ("acme", "free"):
                await settle(core, await ask("m", who), 1)
                with pytest.raises(Unavailable) as caught:
                    await ask("paid", who)
                assert caught.value.reason == "QUOTA_STORE_AWAY"
                assert caught.value.retry_after is not None


async def test_an_outage_longer_than_a_lease_ends_no_work_that_runs(gateways, server):
    async with gateways(2, TOKENS, SLOTS, lease_seconds=1.5, **AWAY) as (first, second):
        running, dropped = await admit(first, 400), await admit(first, 100)

        async def renew() -> None:
            while True:
                await first.admission.renew(running.id)
                await asyncio.sleep(0.2)

        with away(server):
            beat = asyncio.create_task(renew())
            with pytest.raises(Unavailable):  # growth can't be checked; the lease goes on
                await first.admission.renew(running.id, Usage(input_tokens=500))
            await asyncio.sleep(2.0)

        async def alone() -> bool:
            return await have(first, 1)

        await until(alone)  # what nobody renewed has ended
        found = await second.admission._books.shared.find("acme", running.id)
        assert found.left > timedelta()
        with pytest.raises(QuotaExceeded):
            await second.admission.renew(running.id, Usage(input_tokens=901), tenant="acme")
        await second.admission.renew(running.id, Usage(input_tokens=900), tenant="acme")
        beat.cancel()
        await settle(second, running, 800)
        await settle(first, dropped, 1)
        assert await events(first, second) == [("completed", 800), ("expired", 100)]
        assert await left(second) == 100


async def test_what_was_counted_here_alone_is_closed_by_another_gateway_later(gateways, server):
    rate = Limit("chat", Unit.TOKENS, Window.MINUTE, 1000)
    async with gateways(2, rate, SLOTS, default_limit=None, **AWAY) as (first, second):
        with away(server):
            here, grown = await admit(first, 100), await admit(first, 50)
            await first.admission.renew(grown.id, Usage(input_tokens=70))
            await until(lambda: noticed(second))
            with pytest.raises(Unavailable) as caught:
                await settle(second, here, 80)
            assert caught.value.reason == "QUOTA_STORE_AWAY"
        await until(lambda: told(first))
        await settle(second, here, 80)
        await second.admission.renew(grown.id, Usage(input_tokens=90), tenant="acme")
        await settle(first, grown, 85)
        await settle(first, here, 80)  # again, at the one that made it
        assert await events(first, second) == [("completed", 80), ("completed", 85)]
        assert await left(second, "requests") == 1


async def noticed(core: Core) -> bool:
    return core.admission._books.shared.returning


async def test_just_after_an_outage_an_unknown_reservation_may_be_known_later(gateways, server):
    async with gateways(1, TOKENS, **AWAY) as (core,):
        unknown = SimpleNamespace(id="00000000-0000-7000-8000-000000000000")
        with pytest.raises(NotFound):
            await settle(core, unknown, 1)
        with away(server):
            await until(lambda: noticed(core))

        async def answers() -> bool:
            with pytest.raises(Unavailable) as caught:
                await settle(core, unknown, 1)
            return caught.value.reason == "RESERVATION_NOT_TOLD"

        await until(answers)


async def test_while_redis_is_away_rates_are_counted_here_and_budgets_refuse(gateways, server):
    rate = Limit("chat", Unit.REQUESTS, Window.MINUTE, 3)
    budget = Limit("embedding", Unit.TOKENS, Window.MONTH, 1000)
    async with gateways(1, rate, budget, default_limit=None, **AWAY) as (core,):
        before = await admit(core)
        with away(server):
            await settle(core, before, 5)
            for _ in range(3):
                await settle(core, await admit(core), 1)
            with pytest.raises(QuotaExceeded):
                await admit(core)
            with pytest.raises(Unavailable) as caught:
                await core.admission.admit(
                    ACME,
                    capability="embedding",
                    model="m",
                    estimate=Usage(input_tokens=1),
                    request_id="r",
                    method="m",
                )
            assert caught.value.reason == "QUOTA_STORE_AWAY"
        await until(lambda: told(core))
        assert await events(core) == [("completed", 1)] * 3 + [("completed", 5)]
        with pytest.raises(QuotaExceeded):  # what was counted here counts there, too
            await admit(core)


async def test_a_reservation_whose_answer_was_lost_is_given_back(gateways, server, redis):
    day = Limit("chat", Unit.TOKENS, Window.DAY, 1000)
    async with gateways(1, day, SLOTS, **AWAY) as (core,):
        assert await left(core) == 1000
        with away(server):
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await admit(core, 400)
        await until(lambda: told(core))
        assert await left(core) == 1000
        assert await left(core, "requests") == 1

        async def none_left() -> bool:  # what was refunded is there until it is confirmed
            return not await redis.zcard("atrium:{acme}:leases")

        await until(none_left)


async def test_a_tenant_may_have_its_rates_refused_rather_than_counted_here(
    gateways, server, together
):
    async with gateways(1, **AWAY) as (core,):
        await core.tenants.set_fallback("acme", Fallback.REFUSE)
        await admit(core)
        with away(server), pytest.raises(Unavailable) as caught:
            await admit(core)
        assert caught.value.reason == "QUOTA_STORE_AWAY"


async def test_every_key_of_a_tenant_lies_in_one_slot_of_a_cluster(gateways, redis):
    async with gateways(1, TOKENS, SLOTS) as (core,):
        await admit(core)
        await settle(core, await admit(core), 1)
        names = {key.decode() async for key in redis.scan_iter()}
    apart = {"atrium:tenants", "atrium:generation"}  # each used by commands of its own
    assert apart <= names
    assert len(names - apart) >= 4
    assert len({key_slot(name.encode()) for name in names - apart}) == 1
