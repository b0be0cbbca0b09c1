"""A limit that was gone for a while counts what was used and what was begun meanwhile, too."""

from datetime import timedelta

import pytest

from atrium_common.domain import Usage
from atrium_gateway.admission import Outcome
from atrium_gateway.auth.principal import Principal
from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.tenants.domain import Plan

ACME = Principal(tenant="acme", subject="ann")
DAY = Limit("*", Unit.TOKENS, Window.DAY, 10_000)
KIND = {"selector": DAY.selector, "unit": DAY.unit, "window": DAY.window}


@pytest.fixture
async def work(core, make_tenant, admit):
    """Does some work; gives what stays open."""
    await make_tenant()
    await core.tenants.replace_plan(Plan(id="bare", name="bare"))
    await core.tenants.replace_plan(Plan(id="full", name="full", limits=(DAY,)))

    async def once(tokens: int):
        done, left = await admit(ACME), await admit(ACME)
        await core.admission.settle(done.id, Usage(output_tokens=tokens), Outcome.COMPLETED)
        return left

    return once


async def used(core) -> list[int]:
    """What is used of the day's tokens, in each limit that counts them."""
    return [
        int(each.used)
        for each in await core.standing.limits(ACME)
        if (each.meter.unit, each.meter.window) == (Unit.TOKENS, Window.DAY)
    ]


def ways(tenants):
    """How a limit comes to hold, goes and comes back."""

    async def lift(subject: str = "tenant") -> None:
        await tenants.set_limit("acme", Limit(DAY.selector, DAY.unit, DAY.window, None))

    return {
        "set": (
            lambda: tenants.set_limit("acme", DAY),
            lambda: tenants.remove_limit("acme", **KIND),
        ),
        "lifted": (lambda: tenants.set_limit("acme", DAY), lift),
        "a user's": (
            lambda: tenants.set_limit("acme", DAY, subject="user:ann"),
            lambda: tenants.remove_limit("acme", **KIND, subject="user:ann"),
        ),
        "of a plan": (
            lambda: tenants.set_plan("acme", "full"),
            lambda: tenants.set_plan("acme", "bare"),
        ),
        "in a plan": (
            lambda: tenants.set_plan_limit("full", DAY),
            lambda: tenants.remove_plan_limit("full", **KIND),
        ),
        "of a plan that is replaced": (
            lambda: tenants.replace_plan(Plan(id="full", name="f", limits=(DAY,))),
            lambda: tenants.replace_plan(Plan(id="full", name="f")),
        ),
        "not unlimited": (
            lambda: tenants.set_share("acme", weight=1.0, unlimited=False),
            lambda: tenants.set_share("acme", weight=1.0, unlimited=True),
        ),
    }


@pytest.mark.parametrize(
    ("way", "plan"),
    [
        ("set", None),
        ("lifted", "full"),
        ("a user's", None),
        ("of a plan", None),
        ("in a plan", "full"),
        ("of a plan that is replaced", "full"),
        ("not unlimited", "full"),
    ],
)
async def test_it_comes_back_with_all_that_counts_in_it(core, work, way, plan):
    comes, goes = ways(core.tenants)[way]
    await core.tenants.set_plan("acme", plan)
    await comes()
    before = await work(10)
    assert await used(core) == [160]
    await goes()
    assert await used(core) == []
    between = await work(20)
    await comes()
    after = await work(40)
    assert await used(core) == [10 + 20 + 40 + 3 * 150]
    for open_ in (before, between, after):
        await core.admission.settle(open_.id, Usage(output_tokens=1), Outcome.COMPLETED)
    assert await used(core) == [73]


async def test_a_time_zone_comes_back(core, work):
    await core.tenants.set_limit("acme", DAY)
    for number, zone in enumerate(("UTC", "Europe/Berlin", "UTC"), start=1):
        await core.tenants.set_time_zone("acme", zone)
        await work(10)
        assert await used(core) == [160 * number]


async def test_a_limit_that_takes_the_place_of_a_plans_and_gives_it_back(core, work):
    await core.tenants.set_plan("acme", "full")
    await work(10)
    await core.tenants.set_limit("acme", Limit("*", Unit.TOKENS, Window.DAY, 9000))
    await work(10)
    assert await used(core) == [320]
    await core.tenants.remove_limit("acme", **KIND)
    await work(10)
    assert await used(core) == [480]


async def test_what_stays_goes_on_with_the_same_counter(core, work, clock):
    async def counters() -> set[str]:
        return {each.meter.key for each in await core.standing.limits(ACME)}

    tenants = core.tenants
    await tenants.set_plan("acme", "full")
    await tenants.set_limit("acme", DAY, subject="user:ann")
    kept = await counters()
    await tenants.set_limit("acme", Limit(*KIND.values(), 7), subject="user:ann")
    await tenants.set_plan_limit("full", Limit(*KIND.values(), 8))
    await tenants.replace_plan(Plan(id="full", name="other", limits=(DAY,)))
    await tenants.set_plan("acme", "full")
    await tenants.set_share("acme", weight=2.0, unlimited=False)
    await tenants.set_time_zone("acme", "UTC")
    await tenants.set_limit("acme", DAY, subject="user:bob")
    await tenants.remove_limit("acme", **KIND, subject="user:bob")
    clock.advance(timedelta(seconds=1))
    assert await counters() == kept
