"""Limits have a bound in number, for each request counts those that bind it."""

from itertools import islice, product

import pytest
from sqlalchemy import insert

from atrium_common.errors import InvalidArgument
from atrium_gateway.quota.checks import MOST_ALIKE, MOST_LIMITS, MOST_OF_TENANT
from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.tenants.domain import Plan
from atrium_gateway.tenants.tables import tenant_limits

WINDOWS = (Window.HOUR, Window.DAY, Window.MONTH, Window.TOTAL)


def limits(selector: str, count: int) -> list[Limit]:
    kinds = product(Unit, WINDOWS)
    return [Limit(selector, unit, window, 1) for unit, window in islice(kinds, count)]


ALIKE = limits("*", MOST_ALIKE + 1)
MANY = [limit for number in range(MOST_LIMITS // 20) for limit in limits(f"model:m{number}", 20)]


@pytest.mark.parametrize("subject", ["tenant", "user:ann", "plan"])
@pytest.mark.parametrize("kept", [ALIKE[:-1], MANY], ids=["alike", "in all"])
async def test_one_more_is_refused_and_those_that_are_there_can_be_changed(
    core, make_tenant, subject, kept
):
    tenants = core.tenants
    await make_tenant()

    async def put(limit: Limit) -> None:
        if subject == "plan":
            await tenants.set_plan_limit("many", limit)
        else:
            await tenants.set_limit("acme", limit, subject=subject)

    await tenants.replace_plan(Plan(id="many", name="many", limits=tuple(kept)))
    if subject != "plan":
        async with core.administration.engine.begin() as connection:
            rows = [{"tenant": "acme", "subject": subject, **row(limit)} for limit in kept]
            await connection.execute(insert(tenant_limits), rows)
    one_more = ALIKE[-1]
    with pytest.raises(InvalidArgument, match=rf"^A {subject.split(':')[0]} may have") as caught:
        await put(one_more)
    assert caught.value.field == "limits"
    last = kept[-1]
    await put(Limit(last.selector, last.unit, last.window, 7))
    acme, plan = await tenants.tenant("acme"), await tenants.plan("many")
    found = {"tenant": acme.limits, "plan": plan.limits}.get(subject) or acme.scoped[subject]
    assert (len(found), {each.amount for each in found}) == (len(kept), {1, 7})
    with pytest.raises(InvalidArgument):
        await tenants.replace_plan(Plan(id="many", name="many", limits=(*kept, one_more)))
    assert await tenants.plan("many") == plan


async def test_a_tenant_has_a_bound_with_all_its_users(core, make_tenant):
    await make_tenant()
    async with core.administration.engine.begin() as connection:
        rows = [
            {"tenant": "acme", "subject": f"user:{number}", **row(ALIKE[0])}
            for number in range(MOST_OF_TENANT)
        ]
        await connection.execute(insert(tenant_limits), rows)
    with pytest.raises(InvalidArgument, match=r"^A tenant may have 5000 limits with its"):
        await core.tenants.set_limit("acme", ALIKE[0], subject="user:more")
    await core.tenants.remove_limit(
        "acme", selector="*", unit=ALIKE[0].unit, window=ALIKE[0].window, subject="user:7"
    )
    await core.tenants.set_limit("acme", ALIKE[0], subject="user:more")


def row(limit: Limit) -> dict[str, str | int | None]:
    return {
        "selector": limit.selector,
        "unit": limit.unit.value,
        "window": limit.window.value,
        "amount": limit.amount,
    }
