"""Keys, tenants and the audit log over REST: by roles, within a tenant, secrets shown once."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from atrium_gateway.usage.kept import kept_zone


async def asks(client, method, path, **options):
    """Answers as status and JSON."""
    reply = await client.request(method, path, **options)
    return reply.status_code, reply.json()


@pytest.fixture
def as_role(rest):
    """A client with a key of a role in a tenant."""

    async def make(tenant, *roles):
        client = rest.client(await rest.key(tenant, roles=roles))
        rest.closing.push_async_callback(client.aclose)
        return client

    return make


async def test_an_admin_makes_a_key_that_works_until_it_is_revoked(rest, as_role):
    admin = await as_role("adm-keys", "admin")
    status, made = await asks(
        admin, "POST", "/api/keys", json={"name": "ci", "scopes": ["chat", "usage"]}
    )
    assert status == 201
    secret = made.pop("key")
    assert secret.startswith(f"atr_{made['id']}_")
    assert made["scopes"] == ["chat", "usage"]
    assert made["roles"] == []
    assert await asks(admin, "GET", f"/api/keys/{made['id']}") == (200, made)
    _, listed = await asks(admin, "GET", "/api/keys")
    assert made in listed["keys"]
    assert secret not in json.dumps(listed)
    async with rest.client(secret) as client:
        assert (await client.get("/api/usage")).status_code == 200
        status, gone = await asks(admin, "DELETE", f"/api/keys/{made['id']}")
        assert status == 200
        assert gone["revoked_at"]
        await asyncio.sleep(1.0)
        assert (await client.get("/api/usage")).status_code == 401


async def test_a_key_is_changed_and_rotated(rest, as_role):
    admin = await as_role("adm-rotate", "admin")
    _, made = await asks(admin, "POST", "/api/keys", json={"name": "a"})
    path = f"/api/keys/{made['id']}"
    ends = datetime.now(UTC) + timedelta(days=3)
    status, changed = await asks(
        admin,
        "PATCH",
        path,
        json={"name": "b", "models": ["fake-chat"], "expires_at": ends.isoformat()},
    )
    assert status == 200
    assert (changed["name"], changed["models"], changed["scopes"]) == ("b", ["fake-chat"], ["*"])
    status, lasting = await asks(admin, "PATCH", path, json={"expires_at": None})
    assert (status, lasting["expires_at"]) == (200, None)
    status, rotated = await asks(admin, "POST", f"{path}/rotate", json={"grace_seconds": 0})
    assert status == 200
    assert rotated["key"] != made["key"]
    await asyncio.sleep(1.0)
    async with rest.client(made["key"]) as old, rest.client(rotated["key"]) as new:
        assert (await old.get("/api/usage")).status_code == 401
        assert (await new.get("/api/usage")).status_code == 200
    await asks(admin, "DELETE", path)
    assert (await asks(admin, "PATCH", path, json={"name": "c"}))[0] == 409


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scopes": ["chess"]}, "scopes"),
        ({"roles": ["king"]}, "roles"),
        ({"networks": ["here"]}, "networks"),
        ({"models": ["a b"]}, "models[0]"),
        ({"name": "x" * 201}, "name"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2040-01-01T00:00:00"}, "expires_at"),
        ({"color": "red"}, "color"),
    ],
)
async def test_what_a_key_can_not_be_is_named(as_role, body, field):
    admin = await as_role("adm-wrong", "admin")
    status, problem = await asks(admin, "POST", "/api/keys", json=body)
    assert (status, problem["field"]) == (400, field)


async def test_nobody_gives_more_than_they_have(rest, as_role):
    owner, admin = await as_role("adm-gifts", "owner"), await as_role("adm-gifts", "admin")
    _, owners = await asks(owner, "POST", "/api/keys", json={"roles": ["owner"]})
    for role in ("owner", "operator"):
        status, problem = await asks(admin, "POST", "/api/keys", json={"roles": [role]})
        assert (status, problem["code"], problem["field"]) == (403, "above_caller", "roles")
    for method, path in (("PATCH", ""), ("DELETE", ""), ("POST", "/rotate")):
        status, problem = await asks(
            admin,
            method,
            f"/api/keys/{owners['id']}{path}",
            **({} if method == "DELETE" else {"json": {}}),
        )
        assert (status, problem["code"]) == (403, "above_caller")
    narrow = {"roles": ["admin"], "scopes": ["keys", "chat"], "models": ["fake-chat"]}
    _, made = await asks(admin, "POST", "/api/keys", json=narrow | {"networks": ["127.0.0.0/8"]})
    async with rest.client(made["key"]) as client:
        inside = {"scopes": ["chat"], "models": ["fake-chat"], "networks": ["127.0.0.1/32"]}
        assert (await asks(client, "POST", "/api/keys", json=inside))[0] == 201
        for more, field in (
            ({"scopes": ["*"]}, "scopes"),
            ({"scopes": ["usage"]}, "scopes"),
            ({"models": []}, "models"),
            ({"networks": ["0.0.0.0/0"]}, "networks"),
            ({"networks": ["::1/128"]}, "networks"),
        ):
            status, problem = await asks(client, "POST", "/api/keys", json=inside | more)
            assert (status, problem["code"], problem["field"]) == (403, "above_caller", field)


async def test_an_operator_makes_a_tenant_and_its_own_admin_renames_it(rest, as_role):
    operator = await as_role("adm-house", "operator")
    body = {"id": "adm-made", "plan": "free", "time_zone": "Europe/Berlin", "weight": 2}
    status, made = await asks(operator, "POST", "/api/tenants", json=body)
    assert status == 201
    assert (made["name"], made["plan"], made["weight"]) == ("adm-made", "free", 2.0)
    assert (await asks(operator, "POST", "/api/tenants", json=body))[0] == 409
    assert await asks(operator, "GET", "/api/tenants/adm-made") == (200, made)
    admin = await as_role("adm-made", "admin")
    status, renamed = await asks(
        admin, "PATCH", "/api/tenants/adm-made", json={"name": "Made Ltd", "time_zone": "UTC"}
    )
    assert (status, renamed["name"], renamed["time_zone"]) == (200, "Made Ltd", "UTC")
    for terms in ({"blocked": False}, {"plan": None}, {"weight": 9}, {"unlimited": True}):
        assert (await asks(admin, "PATCH", "/api/tenants/adm-made", json=terms))[0] == 403
    everything = {"blocked": True, "plan": None, "weight": 3, "fallback": "refuse"}
    status, changed = await asks(operator, "PATCH", "/api/tenants/adm-made", json=everything)
    assert status == 200
    assert {name: changed[name] for name in everything} == everything
    await asyncio.sleep(1.0)
    assert (await asks(admin, "GET", "/api/tenants/adm-made"))[0] == 403


async def test_the_ledgers_days_follow_a_new_time_zone_at_once(rest, as_role):
    admin = await as_role("adm-zone", "admin")
    body = {"time_zone": "Asia/Kathmandu"}
    assert (await asks(admin, "PATCH", "/api/tenants/adm-zone", json=body))[0] == 200
    engine = rest.core.administration.engine
    async with asyncio.timeout(20):  # a third of the pause between two looks
        while True:
            async with engine.connect() as connection:
                if await kept_zone(connection, "adm-zone") == "Asia/Kathmandu":
                    return
            await asyncio.sleep(0.02)


async def test_tenants_come_in_pages(as_role):
    operator = await as_role("adm-pages", "operator")
    for name in ("adm-page-1", "adm-page-2"):
        await asks(operator, "POST", "/api/tenants", json={"id": name})
    seen, after = [], ""
    while after is not None:
        params = {"limit": 1} | ({"after": after} if after else {})
        _, page = await asks(operator, "GET", "/api/tenants", params=params)
        seen += [tenant["id"] for tenant in page["tenants"]]
        after = page["next"]
    assert seen == sorted(set(seen))
    assert {"adm-page-1", "adm-page-2", "adm-pages"} <= set(seen)


async def test_the_audit_log_tells_who_did_it_and_with_which_request(rest, as_role):
    admin = await as_role("adm-audit", "admin")
    reply = await admin.post("/api/keys", json={}, headers={"x-request-id": "my-request"})
    made = reply.json()
    await asks(admin, "PATCH", f"/api/keys/{made['id']}", json={"name": "new"})
    _, answer = await asks(admin, "GET", "/api/audit", params={"target": made["id"]})
    change, create = answer["entries"]
    assert (create["action"], create["request_id"]) == ("key.create", "my-request")
    assert (create["before"], create["after"]["scopes"]) == (None, ["*"])
    assert (change["before"], change["after"]) == ({"name": ""}, {"name": "new"})
    assert create["actor"] == f"key:{create['actor_key']}"
    assert create["actor_tenant"] == create["tenant"] == "adm-audit"
    assert made["key"] not in json.dumps(answer)
    _, first = await asks(admin, "GET", "/api/audit", params={"limit": 1})
    _, rest_of_it = await asks(admin, "GET", "/api/audit", params={"after": first["next"]})
    assert first["entries"] == [change]
    assert rest_of_it["entries"][0] == create
    operator = await as_role("adm-audit-house", "operator")
    _, everything = await asks(
        operator, "GET", "/api/audit", params={"tenant": "*", "action": "key.create"}
    )
    assert create in everything["entries"]


async def test_an_operator_keeps_the_keys_of_another_tenant(rest, as_role):
    await rest.key("adm-kept")
    operator = await as_role("adm-keeper", "operator")
    status, made = await asks(operator, "POST", "/api/keys", params={"tenant": "adm-kept"}, json={})
    assert (status, made["tenant"]) == (201, "adm-kept")
    assert (await asks(operator, "GET", f"/api/keys/{made['id']}"))[0] == 404
    path = f"/api/keys/{made['id']}?tenant=adm-kept"
    assert (await asks(operator, "DELETE", path))[0] == 200
    assert (await asks(operator, "POST", "/api/keys?tenant=adm-nobody", json={}))[0] == 404


async def test_browsers_may_patch_and_put(rest):
    async with rest.client("none") as client:
        for method in ("PATCH", "PUT", "DELETE"):
            reply = await client.options(
                "/api/keys",
                headers={
                    "origin": "https://app.example",
                    "access-control-request-method": method,
                },
            )
            assert reply.status_code == 200
            assert method in reply.headers["access-control-allow-methods"]
