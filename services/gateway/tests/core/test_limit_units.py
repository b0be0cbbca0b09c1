"""Limits on cost and on the devices' time, of models, keys and users, in days of a time zone."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from atrium_common.domain import Usage
from atrium_common.errors import InvalidArgument, NotFound, QuotaExceeded
from atrium_gateway.admission import Outcome
from atrium_gateway.auth.principal import Principal
from atrium_gateway.core import open_core
from atrium_gateway.quota.in_process import InProcessQuotaStore
from atrium_gateway.quota.limits import Limit, Meter, Unit, Window
from atrium_gateway.quota.measure import reserve_amounts, settle_amounts
from atrium_gateway.quota.redis_store import RedisQuotaStore
from atrium_gateway.quota.store import Hold, QuotaStore, Unseeded
from atrium_gateway.tenants.domain import ApiKey, Fallback, Tenant
from atrium_gateway.tenants.repository import TenantRepository
from atrium_gateway.testing.servers import redis_server

MINUTE = timedelta(minutes=1)
MILLION = Usage(input_tokens=1_000_000)
"""Costs 0.15 of the catalogue's currency."""


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server() as server:
        yield server.url


@pytest_asyncio.fixture(params=["in_process", "redis"])
async def store(request: pytest.FixtureRequest, clock) -> AsyncIterator[QuotaStore]:
    if request.param == "in_process":
        yield InProcessQuotaStore(clock=clock)
        return
    client = Redis.from_url(request.getfixturevalue("redis_url"))
    await client.flushall()
    yield RedisQuotaStore(client, clock=clock, timeout=timedelta(seconds=20))
    await client.aclose()


def meter(unit: Unit, window: Window, limit: int, zone: str = "UTC") -> Meter:
    return Meter(
        key=f"acme:{unit}:{window}",
        capability="*",
        unit=unit,
        window=window,
        limit=limit,
        scale=1,
        scope="tenant:acme",
        name=f"tenant:*:{unit}:{window}",
        time_zone=zone,
    )


async def nothing(apart) -> int:
    """What a ledger without events says."""
    return 0


async def reserve(store: QuotaStore, key: str, meters: list[Meter], amounts: list[int]):
    try:
        return await store.reserve(Hold("acme", key, meters, amounts, MINUTE))
    except Unseeded as err:
        for each in err.meters:
            await store.seed("acme", each, nothing)
    return await store.reserve(Hold("acme", key, meters, amounts, MINUTE))


@pytest.mark.parametrize("window", [Window.MINUTE, Window.HOUR, Window.DAY, Window.MONTH])
async def test_time_on_the_devices_is_counted_when_it_is_known(store, clock, window):
    meters = [meter(Unit.GPU_MILLISECONDS, window, 1000)]
    before = reserve_amounts(meters, Usage(), lambda: 0)
    assert before == [1]
    (state,) = await reserve(store, "a", meters, before)
    assert (state.remaining, state.name) == (999, f"tenant:*:gpu_milliseconds:{window}")
    used = Usage(inference_time=timedelta(seconds=2.5))
    assert await store.settle("acme", "a", settle_amounts(meters, used, lambda: 0))
    with pytest.raises(QuotaExceeded, match="gpu milliseconds"):
        await reserve(store, "b", meters, before)
    if window is Window.MINUTE:
        clock.advance(timedelta(seconds=90))  # of 2500, 1500 drain in this time
        with pytest.raises(QuotaExceeded):
            await reserve(store, "b", meters, before)
        clock.advance(timedelta(seconds=0.1))
        await reserve(store, "b", meters, before)


@pytest.mark.parametrize("window", [Window.MINUTE, Window.HOUR, Window.TOTAL])
async def test_costs_count_in_millionths(store, window):
    meters = [meter(Unit.COST, window, 70_000_000_000)]
    before = reserve_amounts(meters, MILLION, lambda: 69_999_999_998_001)
    assert before == [69_999_999_999]  # billionths, rounded up: what is bound is not free
    (state,) = await reserve(store, "a", meters, before)
    assert state.remaining == 1
    with pytest.raises(QuotaExceeded) as caught:
        await reserve(store, "b", meters, [2])
    assert "limit of 70000 cost" in caught.value.message
    assert "leaves 0.000001; this request needs up to 0.000002" in caught.value.message
    assert await store.settle("acme", "a", [69_999_999_998])
    await reserve(store, "b", meters, [2])


async def test_a_day_of_a_zone_ends_at_its_midnight_in_every_store(store, clock):
    clock.now = datetime(2026, 3, 29, 12, tzinfo=UTC).timestamp()  # Berlin skips an hour
    meters = [meter(Unit.REQUESTS, Window.DAY, 1, "Europe/Berlin")]
    (state,) = await reserve(store, "a", meters, [1])
    assert state.reset_time == datetime(2026, 3, 29, 22, tzinfo=UTC)
    clock.now = datetime(2026, 3, 29, 21, 59, 59, tzinfo=UTC).timestamp()
    with pytest.raises(QuotaExceeded):
        await reserve(store, "b", meters, [1])
    clock.advance(timedelta(seconds=1))
    await reserve(store, "b", meters, [1])


async def spend(core, principal: Principal, usage: Usage, *, estimate: Usage, model: str = "m"):
    reservation = await core.admission.admit(
        principal, capability="chat", model=model, estimate=estimate, request_id="r", method="m"
    )
    await core.admission.settle(reservation.id, usage, Outcome.COMPLETED)
    return reservation


async def test_a_budget_holds_what_work_may_cost_and_settles_what_it_did(core, make_tenant):
    acme = await make_tenant("acme", Limit("*", Unit.COST, Window.MONTH, 200_000))
    await spend(core, acme, Usage(input_tokens=500_000), estimate=MILLION)
    with pytest.raises(QuotaExceeded) as caught:  # 0.075 is spent, 0.15 does not fit into 0.2
        await spend(core, acme, MILLION, estimate=MILLION)
    assert caught.value.reason == "QUOTA_EXHAUSTED"
    assert caught.value.violations[0].name == "tenant:*:cost:month"
    await spend(core, acme, Usage(input_tokens=100_000), estimate=Usage(input_tokens=800_000))


async def test_after_a_restart_every_counter_knows_what_the_ledger_knows(
    settings, catalogue, clock
):
    ann = Principal(tenant="acme", subject="ann", key_id="k")
    bob = Principal(tenant="acme", subject="bob")
    work = Usage(model="m", input_tokens=500_000, inference_time=timedelta(seconds=1))
    left = []
    for run in range(2):
        async with open_core(settings, catalogue=catalogue, clock=clock) as core:
            if run == 0:
                await limited_tenant(core.tenants)
                await spend(core, bob, work, estimate=work)
                await spend(core, ann, work, estimate=work)
            found = await spend(core, ann, Usage(), estimate=Usage(input_tokens=1))
            left.append({limit.name: limit.remaining for limit in found.limits})
    assert left[0] == {
        "tenant:*:cost:month": 149_999,
        "tenant:chat:requests:hour": 97,
        "key:chat:requests:day": 1,
        "user:model:m:gpu_milliseconds:month": 2_999,
    }
    assert left[1] == left[0] | {"key:chat:requests:day": 0, "tenant:chat:requests:hour": 96}


async def test_in_another_time_zone_a_day_begins_where_the_ledger_stands(core, clock, make_tenant):
    """It is 12:30 UTC: in Kiritimati the day began at 10:00, in Tokyo at 15:00 the day before."""
    acme = await make_tenant("acme", Limit("chat", Unit.REQUESTS, Window.DAY, 9))
    clock.advance(-timedelta(hours=3))
    await spend(core, acme, Usage(), estimate=Usage())
    clock.advance(timedelta(hours=3))
    left = []
    for zone in ("UTC", "Pacific/Kiritimati", "Asia/Tokyo"):
        if zone != "UTC":
            await core.tenants.set_time_zone("acme", zone)
            await asyncio.sleep(1)
        found = await spend(core, acme, Usage(), estimate=Usage())
        left += [limit.remaining for limit in found.limits if limit.name.endswith("day")]
    assert left == [9 - 2, 9 - 2, 9 - 4]


async def limited_tenant(tenants: TenantRepository) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    budget = Limit("*", Unit.COST, Window.MONTH, 300_000)
    await tenants.create_tenant(
        Tenant(
            id="acme",
            name="acme",
            blocked=False,
            unlimited=False,
            weight=1.0,
            limits=(budget,),
            created_at=now,
        )
    )
    await tenants.create_key(
        ApiKey(
            id="k",
            tenant="acme",
            name="",
            digest=bytes(32),
            scopes=frozenset({"*"}),
            roles=frozenset(),
            created_at=now,
            expires_at=None,
            revoked_at=None,
        )
    )
    requests = Limit("chat", Unit.REQUESTS, Window.DAY, 3)
    await tenants.set_limit("acme", requests, subject="key:k")
    devices = Limit("model:m", Unit.GPU_MILLISECONDS, Window.MONTH, 4_000)
    await tenants.set_limit("acme", devices, subject="user:ann")


async def test_what_no_store_can_count_is_not_stored(core):
    tenants = core.tenants
    await limited_tenant(tenants)
    for wrong, field in (
        (Limit("chess", Unit.REQUESTS, Window.HOUR, 1), "capability"),
        (Limit("model:a b", Unit.REQUESTS, Window.HOUR, 1), "model"),
        (Limit("*", Unit.TOKENS, Window.CONCURRENT, 1), "unit"),
        (Limit("*", Unit.COST, Window.MINUTE, 2**50), "amount"),
        (Limit("*", Unit.COST, Window.MONTH, -1), "amount"),
    ):
        for subject in ("tenant", "key:k", "user:ann"):
            with pytest.raises(InvalidArgument) as caught:
                await tenants.set_limit("acme", wrong, subject=subject)
            assert caught.value.field == field
        with pytest.raises(InvalidArgument):
            await tenants.set_plan_limit("free", wrong)
    lifted = Limit("*", Unit.COST, Window.MONTH, None)
    for subject in ("key:k", "user:ann"):
        with pytest.raises(InvalidArgument, match="Only a tenant's own"):
            await tenants.set_limit("acme", lifted, subject=subject)
    with pytest.raises(InvalidArgument):
        await tenants.set_limit("acme", lifted, subject="group:x")
    with pytest.raises(NotFound):
        await tenants.set_limit("acme", Limit("*", Unit.COST, Window.DAY, 1), subject="key:z")
    with pytest.raises(NotFound):
        await tenants.set_plan("acme", "platinum")
    for zone in ("Europe/Atlantis", "../etc/passwd", ""):
        with pytest.raises(InvalidArgument):
            await tenants.set_time_zone("acme", zone)


async def test_a_tenant_is_read_as_it_was_written(core):
    await limited_tenant(core.tenants)
    await core.tenants.set_plan("acme", "pro")
    await core.tenants.set_time_zone("acme", "Asia/Tokyo")
    await core.tenants.set_fallback("acme", Fallback.REFUSE)
    tenant = await core.tenants.tenant("acme")
    assert (tenant.plan, tenant.time_zone, tenant.fallback) == ("pro", "Asia/Tokyo", "refuse")
    assert tenant.plan_limits == (
        Limit("*", Unit.REQUESTS, Window.MINUTE, 100),
        Limit("*", Unit.TOKENS, Window.MONTH, 1_000_000),
    )
    assert set(tenant.scoped) == {"key:k", "user:ann"}
    await core.tenants.remove_limit(
        "acme", selector="chat", unit=Unit.REQUESTS, window=Window.DAY, subject="key:k"
    )
    tenant = await core.tenants.tenant("acme")
    assert set(tenant.scoped) == {"user:ann"}
