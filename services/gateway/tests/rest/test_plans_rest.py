"""Plans over REST, and lists that are paged in the database: for operators."""

import pytest

from atrium_gateway.audit.log import AuditFilter


@pytest.fixture
async def operator(rest):
    async with rest.client(await rest.key("plans-house", roles=("operator",))) as client:
        yield client


async def entries(rest, target):
    log = rest.core.administration.log(scope=None)
    found = await log.entries(AuditFilter(target=target), limit=9)
    return [(entry.action.value, entry.before, entry.after) for entry in found][::-1]


async def test_a_plan_is_made_changed_and_removed(rest, operator):
    limits = [
        {"unit": "requests", "window": "minute", "amount": 5, "capability": "chat"},
        {"unit": "cost", "window": "month", "amount": "12.5"},
        {"unit": "tokens", "window": "day", "amount": 9, "model": "fake-chat"},
    ]
    made = await operator.put("/api/plans/team", json={"name": "Team", "limits": limits})
    assert made.status_code == 200
    assert made.json()["name"] == "Team"
    told = {each["unit"]: each for each in made.json()["limits"]}
    for limit in limits:
        assert told[limit["unit"]] == {"capability": None, "model": None, **limit}
    listed = (await operator.get("/api/plans")).json()["plans"]
    kept = {plan["id"]: plan for plan in listed}["team"]
    assert kept["name"] == "Team"
    assert sorted(kept["limits"], key=str) == sorted(made.json()["limits"], key=str)
    assert [plan["id"] for plan in listed] == sorted(plan["id"] for plan in listed)

    smaller = await operator.put("/api/plans/team", json={"limits": limits[:1]})
    assert (smaller.json()["name"], len(smaller.json()["limits"])) == ("team", 1)
    await rest.key("plans-member")
    assert (
        await operator.patch("/api/tenants/plans-member", json={"plan": "team"})
    ).status_code == 200
    shown = (await operator.get("/api/limits", params={"tenant": "plans-member"})).json()
    assert "plan:team" in {limit["source"] for limit in shown["limits"]}

    refused = await operator.delete("/api/plans/team")
    assert (refused.status_code, refused.json()["code"]) == (409, "plan_in_use")
    await operator.patch("/api/tenants/plans-member", json={"plan": None})
    gone = await operator.delete("/api/plans/team")
    assert gone.json() == {"id": "team", "deleted": True}
    assert (await operator.delete("/api/plans/team")).status_code == 404
    noted = await entries(rest, "team")
    assert [action for action, _, _ in noted] == ["plan.set", "plan.set", "plan.remove"]
    assert noted[0][1] is None
    assert noted[1][1]["name"] == "Team"
    assert noted[1][2] == {"name": "team", "limits": ["plan:team:chat:requests:minute=5"]}
    assert (noted[2][1], noted[2][2]) == (noted[1][2], None)


@pytest.mark.parametrize(
    ("plan", "limits", "field"),
    [
        ("No", [], "plan"),
        ("x", [{"unit": "tokens", "window": "day", "amount": -1}], "limits[0].amount"),
        ("x", [{"unit": "tokens", "window": "day", "amount": 1}] * 2, "limits"),
        ("x", [{"unit": "tokens", "window": "concurrent", "amount": 1}], None),
        (
            "x",
            [{"unit": "tokens", "window": "day", "amount": 1, "model": "m", "capability": "chat"}],
            "model",
        ),
    ],
    ids=["name", "amount", "twice", "unit", "both"],
)
async def test_what_no_plan_can_be_is_refused_and_nothing_is_kept(operator, plan, limits, field):
    before = (await operator.get("/api/plans")).json()
    reply = await operator.put(f"/api/plans/{plan}", json={"limits": limits})
    assert reply.status_code == 400
    assert field is None or reply.json()["field"] == field
    assert (await operator.get("/api/plans")).json() == before


async def paged(client, path, name, **params):
    found, after = [], None
    while True:
        query = {"limit": 2, **params, **({"after": after} if after else {})}
        page = (await client.get(path, params=query)).json()
        assert len(page[name]) <= 2
        found += page[name]
        after = page["next"]
        if after is None:
            return found


async def test_tenants_and_keys_come_in_pages(rest, operator):
    for number in range(5):
        await rest.key(f"plans-page-{number}")
    whole = (await operator.get("/api/tenants", params={"limit": 1000})).json()
    assert whole["next"] is None
    assert await paged(operator, "/api/tenants", "tenants") == whole["tenants"]
    for _ in range(4):
        await rest.key("plans-page-0")
    keys = (await operator.get("/api/keys", params={"tenant": "plans-page-0"})).json()["keys"]
    assert len(keys) == 5
    found = await paged(operator, "/api/keys", "keys", tenant="plans-page-0")
    assert [key["id"] for key in found] == [key["id"] for key in keys]
    theirs = {"tenant": "plans-page-1", "after": keys[0]["id"]}
    assert (await operator.get("/api/keys", params=theirs)).status_code == 400
    assert (await operator.get("/api/tenants", params={"after": "a\0"})).status_code == 400
