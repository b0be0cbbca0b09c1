"""Limits and prices over REST: what holds and where it comes from, and who may change it."""

from datetime import UTC, datetime, timedelta

import pytest

from atrium_common.domain import Usage
from atrium_gateway.admission import Outcome
from atrium_gateway.auth.principal import Principal
from atrium_gateway.quota import checks
from atrium_gateway.quota.limits import Limit, Unit, Window


@pytest.fixture
def as_admin(rest):
    """A client with a key of a role in a tenant."""

    async def make(tenant, *limits, role="admin"):
        client = rest.client(await rest.key(tenant, *limits, roles=(role,)))
        rest.closing.push_async_callback(client.aclose)
        return client

    return make


async def limits_of(client, **params):
    return (await client.get("/api/limits", params=params)).json()["limits"]


async def test_each_limit_tells_where_it_comes_from(rest, as_admin):
    own = Limit("*", Unit.TOKENS, Window.MONTH, 5000)
    admin = await as_admin("lim-source", own)
    found = await limits_of(admin)
    assert {limit["source"] for limit in found} == {"tenant", "default"}
    assert found[0] == {
        "source": "tenant",
        "capability": "*",
        "model": None,
        "unit": "tokens",
        "window": "month",
        "amount": 5000,
        "used": 0,
        "remaining": 5000,
        "resets_at": found[0]["resets_at"],
    }
    assert datetime.fromisoformat(found[0]["resets_at"]) > datetime.now(UTC)
    assert {limit["amount"] for limit in found[1:]} == {100}
    await rest.core.tenants.set_plan("lim-source", "free")
    assert [(limit["source"], limit["unit"]) for limit in await limits_of(admin)] == [
        ("tenant", "tokens"),
        ("plan:free", "requests"),
    ]


async def test_limits_tell_what_is_used_and_running_work_counts(rest, as_admin):
    slots = Limit("*", Unit.REQUESTS, Window.CONCURRENT, 3)
    tokens = Limit("chat", Unit.TOKENS, Window.MONTH, 5000)
    admin = await as_admin("lim-used", slots, tokens)
    asked = Principal(tenant="lim-used", subject="ada")
    running = await rest.core.admission.admit(
        asked,
        capability="chat",
        model="fake-chat",
        estimate=Usage(input_tokens=40, output_tokens=60),
        request_id="r",
        method="m",
    )

    async def standing() -> list[tuple]:
        listed = {limit["window"]: limit for limit in await limits_of(admin)}
        summary = (await admin.get("/api/usage/summary")).json()["limits"]
        told = {limit["window"]: limit for limit in summary}
        for window in ("concurrent", "month"):
            assert told[window]["used"] == listed[window]["used"]
        found = [listed["concurrent"], listed["month"]]
        return [(limit["used"], limit["remaining"]) for limit in found]

    assert await standing() == [(1, 2), (100, 4900)]
    await rest.core.admission.settle(running.id, Usage(input_tokens=40), Outcome.COMPLETED)
    assert await standing() == [(0, 3), (40, 4960)]


async def test_an_admin_limits_keys_and_users_but_not_the_tenant(rest, as_admin):
    admin = await as_admin("lim-keys")
    made = (await admin.post("/api/keys", json={})).json()
    body = {"unit": "tokens", "window": "day", "amount": 10, "key": made["id"]}
    reply = await admin.put("/api/limits", json=body | {"model": "fake-chat"})
    assert reply.status_code == 200
    assert (reply.json()["limits"][-1]["source"], reply.json()["limits"][-1]["model"]) == (
        f"key:{made['id']}",
        "fake-chat",
    )
    spent = {"unit": "cost", "window": "month", "amount": "2.5", "user": "ada"}
    assert (await admin.put("/api/limits", json=spent)).status_code == 200
    found = await limits_of(admin, user="ada")
    assert (found[-1]["source"], found[-1]["amount"]) == ("user:ada", "2.5")
    assert f"key:{made['id']}" not in {limit["source"] for limit in found}
    kind = {"unit": "tokens", "window": "day", "model": "fake-chat", "key": made["id"]}
    assert (await admin.delete("/api/limits", params=kind)).status_code == 200
    assert (await admin.delete("/api/limits", params=kind)).status_code == 404
    tenants_own = {"unit": "tokens", "window": "day", "amount": 10}
    assert (await admin.put("/api/limits", json=tenants_own)).status_code == 403
    entries = (await admin.get("/api/audit", params={"action": "limit.set"})).json()["entries"]
    assert [entry["target"] for entry in entries] == [
        "user:ada:*:cost:month",
        f"key:{made['id']}:model:fake-chat:tokens:day",
    ]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"amount": -1}, 400, "amount"),
        ({"amount": "x"}, 400, "amount"),
        ({"amount": None}, 400, "amount"),
        ({"unit": "chess"}, 400, "unit"),
        ({"capability": "chess"}, 400, "capability"),
        ({"capability": "chat", "model": "m"}, 400, "model"),
        ({"key": "nothing"}, 400, "user"),
        ({"window": "concurrent"}, 400, "unit"),
    ],
)
async def test_what_a_limit_can_not_be_is_named(as_admin, body, status, field):
    admin = await as_admin("lim-wrong")
    good = {"unit": "tokens", "window": "day", "amount": 10, "user": "ada"}
    reply = await admin.put("/api/limits", json=good | body)
    assert (reply.status_code, reply.json()["field"]) == (status, field)


async def test_an_operator_limits_a_tenant_at_once(rest, as_admin):
    operator = await as_admin("lim-house", role="operator")
    await rest.key("lim-tenant")
    body = {"unit": "requests", "window": "hour", "amount": 0}
    reply = await operator.put("/api/limits", params={"tenant": "lim-tenant"}, json=body)
    assert reply.json()["limits"][0]["amount"] == 0
    lifted = await operator.put(
        "/api/limits", params={"tenant": "lim-tenant"}, json=body | {"amount": None}
    )
    assert lifted.json()["limits"][0]["amount"] is None
    gone = await operator.delete(
        "/api/limits", params={"tenant": "lim-tenant", "unit": "requests", "window": "hour"}
    )
    assert {limit["source"] for limit in gone.json()["limits"]} == {"default"}


async def test_an_operator_sets_a_price_and_tenants_see_it(rest, as_admin):
    operator = await as_admin("lim-prices", role="operator")
    start = datetime.now(UTC) + timedelta(hours=1)
    body = {
        "model": "fake-slow",
        "prices": {"million_input_tokens": "0.15", "request": "0.001"},
        "costs": {"million_input_tokens": "0.1"},
        "effective_from": start.isoformat(),
    }
    reply = await operator.post("/api/prices", json=body)
    assert reply.status_code == 201
    admin = await as_admin("lim-priced")
    assert (await admin.post("/api/prices", json=body)).status_code == 403
    now = (await admin.get("/api/prices")).json()["models"]
    assert "fake-slow" not in [each["model"] for each in now]
    later = {"at": (start + timedelta(seconds=1)).isoformat()}
    (seen,) = [
        each
        for each in (await admin.get("/api/prices", params=later)).json()["models"]
        if each["model"] == "fake-slow"
    ]
    assert seen == {
        "model": "fake-slow",
        "version": reply.json()["version"],
        "prices": body["prices"],
    }
    shown = (await operator.get("/api/prices", params=later)).json()["models"]
    assert [each["costs"] for each in shown if each["model"] == "fake-slow"] == [body["costs"]]
    entries = (
        await operator.get("/api/audit", params={"tenant": "*", "action": "prices.set"})
    ).json()["entries"]
    assert entries[0]["target"] == "fake-slow"
    assert "request=0.001" in entries[0]["after"]["prices"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"model": "nothing"}, 404, "model"),
        ({"prices": {"chess": "1"}}, 400, "prices"),
        ({"prices": {"request": "-1"}}, 400, "prices"),
        ({"effective_from": "2020-01-01T00:00:00Z"}, 400, "effective_from"),
    ],
)
async def test_what_a_price_can_not_be_is_named(as_admin, body, status, field):
    operator = await as_admin("lim-prices-wrong", role="operator")
    reply = await operator.post("/api/prices", json={"model": "fake-slow", "prices": {}} | body)
    assert (reply.status_code, reply.json()["field"]) == (status, field)


async def test_one_limit_too_many_is_refused_by_name(rest, as_admin, monkeypatch):
    admin = await as_admin("lim-many")
    monkeypatch.setattr(checks, "MOST_ALIKE", 1)
    limit = {"unit": "tokens", "window": "day", "amount": 9, "user": "ann"}
    for amount in (9, 10):
        assert (await admin.put("/api/limits", json={**limit, "amount": amount})).is_success
    refused = await admin.put("/api/limits", json={**limit, "window": "month"})
    assert refused.status_code == 400
    told = refused.json()
    assert (told["code"], told["field"]) == ("invalid_argument", "limits")
    assert told["detail"].startswith("A user may have 1 limits of one capability")
    listed = [each for each in await limits_of(admin) if each["source"] == "user:ann"]
    assert [(each["window"], each["amount"]) for each in listed] == [("day", 10)]
