"""A limit that is set while several gateways have work that runs: each counts its own in it."""

import pytest
from replica_gateways import ACME, AWAY, SLOTS, TOKENS, admit, away, events, settle, until

from atrium_common.domain import Usage
from atrium_common.errors import QuotaExceeded, Unavailable


def uses(core, amount: int):
    """Whether the month's tokens that are used are so many by now."""

    async def check() -> bool:
        found = [each.used for each in await core.standing.limits(ACME) if each.used is not None]
        return amount in found

    return check


async def test_each_gateway_counts_what_it_admitted_and_any_closes_it(gateways):
    async with gateways(2, default_limit=None) as (first, second):
        here, there, grown = await admit(first), await admit(second), await admit(second)
        await first.tenants.set_limit("acme", TOKENS)
        await first.tenants.set_limit("acme", SLOTS)
        await until(uses(first, 300))
        await until(uses(first, 3))
        for core in (first, second):
            with pytest.raises(QuotaExceeded):
                await admit(core)
        await second.admission.renew(grown.id, Usage(input_tokens=400))
        with pytest.raises(QuotaExceeded):
            await first.admission.renew(grown.id, Usage(input_tokens=801), tenant="acme")
        await settle(second, here, 10)
        await settle(first, there, 20)
        await first.admission.refund(grown.id, "UNAVAILABLE", tenant="acme")
        assert await uses(second, 30)()
        assert await uses(second, 0)()
        assert len(await events(first, second)) == 3


async def test_a_limit_that_is_set_while_redis_is_away_counts_what_runs_afterwards(
    gateways, server
):
    async with gateways(1, default_limit=None, **AWAY) as (core,):
        running = await admit(core)
        with away(server):
            await core.tenants.set_limit("acme", TOKENS)
            for _ in range(3):
                with pytest.raises(Unavailable):
                    await admit(core, 901)

        async def counted() -> bool:
            try:
                await admit(core, 901)
            except Unavailable:
                return False
            except QuotaExceeded:
                return True
            raise AssertionError("What runs is not counted.")

        await until(counted)
        await settle(core, running, 50)
        # What was asked while Redis stood still it may have done since: that is given back first.
        await until(uses(core, 50))
