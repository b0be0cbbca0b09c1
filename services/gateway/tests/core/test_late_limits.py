"""A limit that is set while work runs begins with that work, whatever set it."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from atrium_common.domain import Usage
from atrium_common.errors import NotFound, QuotaExceeded
from atrium_gateway.admission import Outcome
from atrium_gateway.auth.principal import Principal
from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.tenants.domain import Plan

ACME = Principal(tenant="acme", subject="user")
SLOT = Limit("*", Unit.REQUESTS, Window.CONCURRENT, 1)
ASKED = Usage(input_tokens=100, output_tokens=50)


def tokens(amount: int, window: Window = Window.DAY, selector: str = "*") -> Limit:
    return Limit(selector, Unit.TOKENS, window, amount)


async def used(core, principal: Principal = ACME) -> dict[str, int]:
    return {
        f"{each.meter.unit}:{each.meter.window}": int(each.used)
        for each in await core.standing.limits(principal)
    }


async def end(core, reservation, usage: Usage | None = None) -> None:
    await core.admission.settle(reservation.id, usage or Usage(), Outcome.COMPLETED)


async def test_what_runs_takes_the_slots_of_a_new_limit(core, make_tenant, admit):
    await make_tenant()
    running = [await admit(ACME) for _ in range(3)]
    await core.tenants.set_limit("acme", SLOT)
    for each in running:
        with pytest.raises(QuotaExceeded):
            await admit(ACME)
        await end(core, each)
    await admit(ACME)


async def test_many_at_once_after_a_change_wait_until_what_runs_is_counted(
    core, make_tenant, admit
):
    await make_tenant()
    for _ in range(20):
        await admit(ACME)
    await core.tenants.set_limit("acme", replace(SLOT, amount=25))
    found = await asyncio.gather(*(admit(ACME) for _ in range(30)), return_exceptions=True)
    assert sum(not isinstance(each, QuotaExceeded) for each in found) == 5


async def test_a_new_budget_holds_what_runs_what_it_settles_and_what_it_grows_to(
    core, make_tenant, admit
):
    await make_tenant()
    ended, settled, refunded, grown = [await admit(ACME) for _ in range(4)]
    await end(core, ended, Usage(output_tokens=20))
    await core.tenants.set_limit("acme", tokens(1000))
    assert (await used(core))["tokens:day"] == 20 + 3 * 150
    await end(core, settled, Usage(output_tokens=200))
    await core.admission.refund(refunded.id, "UNAVAILABLE")
    with pytest.raises(QuotaExceeded):
        await core.admission.renew(grown.id, Usage(output_tokens=781))
    await core.admission.renew(grown.id, Usage(output_tokens=780))
    assert (await used(core))["tokens:day"] == 1000
    await end(core, grown, Usage(output_tokens=30))
    assert (await used(core))["tokens:day"] == 250


async def test_work_that_nobody_settles_stays_counted_in_the_new_budget(
    core, clock, make_tenant, admit
):
    await make_tenant()
    await admit(ACME)
    await core.tenants.set_limit("acme", tokens(1000))
    await core.tenants.set_limit("acme", SLOT)
    with pytest.raises(QuotaExceeded):
        await admit(ACME)
    clock.advance(timedelta(hours=1))
    await core.admission.expire()
    assert (await used(core))["tokens:day"] == 150
    await admit(ACME)


@pytest.mark.parametrize("what", ["plan", "plan's limit", "zone", "no longer unlimited"])
async def test_whatever_brings_a_limit_counts_what_runs(core, make_tenant, admit, what):
    await make_tenant("acme", *([tokens(500)] if what in ("zone", "no longer unlimited") else ()))
    await core.tenants.replace_plan(Plan(id="bare", name="bare"))
    await core.tenants.replace_plan(Plan(id="full", name="full", limits=(tokens(500),)))
    await core.tenants.set_plan("acme", "bare")
    await core.tenants.set_share("acme", weight=1.0, unlimited=what == "no longer unlimited")
    running = await admit(ACME)
    if what == "plan":
        await core.tenants.set_plan("acme", "full")
    elif what == "plan's limit":
        await core.tenants.set_plan_limit("bare", tokens(500))
    elif what == "zone":
        await core.tenants.set_time_zone("acme", "Europe/Berlin")
    else:
        await core.tenants.set_share("acme", weight=1.0, unlimited=False)
    assert await used(core) == {"tokens:day": 150}
    await end(core, running, Usage(output_tokens=10))
    assert await used(core) == {"tokens:day": 10}


async def test_only_what_a_limit_binds_counts_in_it(core, make_tenant, admit):
    await make_tenant()
    await admit(ACME)
    await admit(replace(ACME, subject="other"))
    await admit(ACME, capability="embedding")
    await core.tenants.set_limit("acme", tokens(1000, selector="chat"), subject="user:user")
    assert (await used(core))["tokens:day"] == 150


async def test_a_minute_begins_empty_and_a_window_without_what_began_before_it(
    core, clock, make_tenant, admit
):
    await make_tenant()
    clock.advance(timedelta(minutes=29, seconds=30))  # NOON is half past
    before = await admit(ACME)
    clock.advance(timedelta(seconds=31))
    await admit(ACME)
    for window in (Window.MINUTE, Window.HOUR, Window.TOTAL):
        await core.tenants.set_limit("acme", tokens(1000, window))
    found = await used(core)
    assert {found[f"tokens:{name}"] for name in ("minute",)} == {0}
    assert (found["tokens:hour"], found["tokens:total"]) == (150, 300)
    await end(core, before, Usage(output_tokens=1))
    found = await used(core)
    assert (found["tokens:hour"], found["tokens:total"]) == (150, 151)


async def test_ended_work_is_closed_as_ever(core, make_tenant, admit):
    await make_tenant()
    reservation = await admit(ACME, estimate=ASKED)
    await core.tenants.set_limit("acme", tokens(1000))
    await end(core, reservation, ASKED)
    assert (await used(core))["tokens:day"] == 150
    with pytest.raises(NotFound):
        await core.admission.renew(reservation.id)
