"""`/api/usage/summary` over REST: every limit of the policy tree, and where it is heading."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.standing import scaled
from atrium_gateway.tenants.domain import Tenant

LIMITS = (
    Limit("*", Unit.REQUESTS, Window.MONTH, 1000),
    Limit("*", Unit.REQUESTS, Window.MINUTE, 60),
    Limit("*", Unit.REQUESTS, Window.CONCURRENT, 5),
    Limit("speech", Unit.CHARACTERS, Window.TOTAL, 20),
    Limit("*", Unit.AUDIO_SECONDS, Window.DAY, 100),
    Limit("model:fake-speech", Unit.COST, Window.MONTH, 1_000_000),
    Limit("*", Unit.REQUESTS, Window.HOUR, 7),
)


@pytest.fixture
async def spoken(rest, request):
    """A tenant in Kathmandu that has spoken twelve characters, and a client of it."""
    tenant = f"summary-{len(request.node.name)}"
    await rest.core.tenants.create_tenant(
        Tenant(
            id=tenant,
            name="",
            blocked=False,
            unlimited=False,
            weight=1.0,
            limits=LIMITS,
            created_at=datetime.now(UTC),
            time_zone="Asia/Kathmandu",
        )
    )
    async with rest.client(await rest.key(tenant)) as client:
        reply = await client.post("/api/text-to-speech", json={"text": "Hello there."})
        assert reply.status_code == 200
        await rest.settled(tenant, 1)
        yield client


async def test_a_summary_tells_what_is_left_of_every_limit(spoken):
    summary = (await spoken.get("/api/usage/summary")).json()
    limits = {limit["name"]: limit for limit in summary["limits"]}
    assert set(limits) == {
        f"tenant:{limit.selector}:{limit.unit}:{limit.window}" for limit in LIMITS
    }
    month = limits["tenant:*:requests:month"]
    assert (month["limit"], month["used"], month["remaining"]) == (1000, 1, 999)
    ends = datetime.fromisoformat(month["reset_time"]).astimezone(ZoneInfo("Asia/Kathmandu"))
    assert (ends.day, ends.hour, ends.minute) == (1, 0, 0)
    assert month["forecast"] >= 1
    total = limits["tenant:speech:characters:total"]
    assert (total["used"], total["remaining"], total["reset_time"]) == (12, 8, None)
    assert total["forecast"] is None
    running = limits["tenant:*:requests:concurrent"]
    assert (running["limit"], running["used"], running["remaining"]) == (5, 0, 5)
    assert limits["tenant:*:requests:minute"]["used"] <= 1
    assert limits["tenant:*:requests:hour"]["remaining"] == 6
    day = limits["tenant:*:audio_seconds:day"]
    assert 0 < day["used"] < 100
    assert day["used"] + day["remaining"] == 100
    cost = limits["tenant:model:fake-speech:cost:month"]
    assert (cost["limit"], cost["used"], cost["remaining"]) == ("1", "0.00018", "0.99982")
    assert (cost["model"], cost["window"]) == ("fake-speech", "month")


async def test_the_running_month_is_the_tenants_own(rest, spoken):
    summary = (await spoken.get("/api/usage/summary")).json()
    period = summary["period"]
    assert summary["time_zone"] == "Asia/Kathmandu"
    assert period["start_time"].endswith("T18:15:00Z")
    assert period["totals"]["requests"] == 1
    assert period["totals"]["cost"] == "0.00018"
    assert period["forecast"]["requests"] >= 1
    assert Decimal(period["forecast"]["cost"]) >= Decimal("0.00018")
    operator = await rest.key("summary-operator", roles=("operator",), unlimited=True)
    async with rest.client(operator) as client:
        query = {"tenant": summary["tenant"]}
        seen = (await client.get("/api/usage/summary", params=query)).json()
    assert seen["period"]["totals"] == period["totals"]
    assert [limit["name"] for limit in seen["limits"]] == [
        limit["name"] for limit in summary["limits"]
    ]


def test_a_forecast_goes_on_at_the_rate_so_far():
    start = datetime(2026, 4, 1, tzinfo=UTC)
    end = start + timedelta(days=30)
    grown = [
        scaled(Decimal(5), start=start, now=start + timedelta(days=days), end=end)
        for days in (0, 10, 15, 30, 40)
    ]
    assert grown == [5, 15, 10, 5, 5]


@pytest.mark.parametrize("roles", [(), ("viewer",), ("developer",), ("admin",), ("owner",)])
async def test_every_role_reads_its_own_usage_and_no_other_tenants(rest, roles):
    await rest.key("summary-other")
    name = f"summary-{roles[0] if roles else 'plain'}"
    async with rest.client(await rest.key(name, roles=roles)) as client:
        for path in ("", "/events", "/summary", "/statement"):
            assert (await client.get(f"/api/usage{path}")).status_code == 200
            other = await client.get(f"/api/usage{path}", params={"tenant": "summary-other"})
            assert (other.status_code, other.json()["field"]) == (403, "tenant")


async def test_a_narrow_credential_reads_usage_only_if_it_says_so(rest):
    await rest.key("summary-narrow")
    for scope, status in (("chat", 403), ("usage", 200), ("usage:read", 200)):
        token = rest.token("summary-narrow", scopes=frozenset({scope}))
        async with rest.client(token) as client:
            assert (await client.get("/api/usage/summary")).status_code == status
