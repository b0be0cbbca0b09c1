"""While Redis is away and when it is back: what is counted by each alone, refused, told later."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from replica_gateways import (
    ACME,
    AWAY,
    SLOTS,
    TOKENS,
    admit,
    away,
    events,
    have,
    left,
    noticed,
    settle,
    tenant,
    told,
    until,
)

from atrium_common.catalogue import Catalogue
from atrium_common.domain import Usage
from atrium_common.errors import NotFound, QuotaExceeded, Unavailable
from atrium_gateway.auth.principal import Principal
from atrium_gateway.core import open_core
from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.tenants.domain import Fallback


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
