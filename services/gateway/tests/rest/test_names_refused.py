"""Names and times that no database takes are refused by field, never by an error of ours."""

from urllib.parse import quote

import httpx
import pytest

ZERO = "a\0b"
LATE, EARLY = "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"
LIMIT = {"unit": "tokens", "window": "day"}
NAMED = [
    ("owner", "POST", "/api/keys", {"name": ZERO}, "name"),
    ("owner", "POST", "/api/keys", {"expires_at": LATE}, "expires_at"),
    ("owner", "POST", "/api/keys", {"networks": ["fe80::1%eth0"]}, "networks"),
    ("owner", "PATCH", "/api/tenants/refused-names", {"name": ZERO}, "name"),
    ("owner", "PATCH", "/api/tenants/refused-names", {"time_zone": "right/UTC"}, "time_zone"),
    ("owner", "PATCH", "/api/tenants/refused-names", {"time_zone": "localtime"}, "time_zone"),
    ("owner", "PATCH", "/api/tenants/refused-names", {"time_zone": "../UTC"}, "time_zone"),
    ("owner", "PUT", "/api/limits", LIMIT | {"amount": 1, "user": ZERO}, "user"),
    ("owner", "PUT", "/api/limits", LIMIT | {"amount": 1, "key": ZERO}, "key"),
    ("owner", "PUT", "/api/limits", LIMIT | {"amount": "٣", "user": "a"}, "amount"),
    ("owner", "POST", "/api/tokens", {"scopes": ["chat"], "subject": ZERO}, "subject"),
    ("operator", "POST", "/api/tenants", {"id": "line-break\n"}, "id"),
    ("operator", "POST", "/api/tenants", {"id": "b", "name": ZERO}, "name"),
    ("operator", "PUT", "/api/plans/p", {"name": ZERO}, "name"),
    ("operator", "POST", "/api/prices", {"model": "fake-chat", "effective_from": LATE},
     "effective_from"),
    ("operator", "POST", "/api/prices", {"model": "fake-chat", "prices": {"request": "1e30"}},
     "prices"),
    ("operator", "POST", "/api/prices", {"model": "fake-chat", "costs": {"request": "1e-40"}},
     "prices"),
]  # fmt: skip
ASKED = [
    ("owner", "GET", "/api/audit", {"actor": ZERO}, "actor"),
    ("owner", "GET", "/api/audit", {"target": ZERO}, "target"),
    ("owner", "GET", "/api/audit", {"after": ZERO}, "after"),
    ("owner", "GET", "/api/audit", {"action": "key.eat"}, "action"),
    ("owner", "GET", "/api/audit", {"start_time": EARLY}, "start_time"),
    ("owner", "GET", "/api/audit", {"end_time": LATE}, "end_time"),
    ("owner", "GET", "/api/audit",
     {"start_time": "2026-02-01T00:00:00Z", "end_time": "2026-01-01T00:00:00Z"}, "end_time"),
    ("owner", "GET", "/api/limits", {"user": ZERO}, "user"),
    ("owner", "DELETE", "/api/limits", LIMIT | {"user": ZERO}, "user"),
    ("owner", "GET", "/api/keys", {"after": ZERO}, "after"),
    ("owner", "GET", "/api/prices", {"at": EARLY}, "at"),
    ("owner", "GET", "/api/usage/events", {"after": ZERO}, "after"),
    ("owner", "GET", "/api/usage/statement", {"month": "2026-01\n"}, "month"),
    *(("operator", "GET", path, {"tenant": name}, "tenant")
      for path in ("/api/keys", "/api/limits", "/api/audit", "/api/usage", "/api/usage/events",
                   "/api/usage/summary", "/api/usage/statement")
      for name in (ZERO, "a\r\nb", "é")),
]  # fmt: skip


@pytest.fixture(scope="session")
async def clients(rest):
    """Clients of one tenant by role."""
    made = {
        role: rest.client(await rest.key("refused-names", roles=(role,)))
        for role in ("owner", "operator")
    }
    yield made
    for client in made.values():
        await client.aclose()


@pytest.mark.parametrize(("role", "method", "path", "body", "field"), NAMED)
async def test_what_a_body_can_not_name_is_refused(clients, role, method, path, body, field):
    reply = await clients[role].request(method, path, json=body)
    assert (reply.status_code, reply.json()["field"]) == (400, field)


@pytest.mark.parametrize(("role", "method", "path", "query", "field"), ASKED)
async def test_what_a_query_can_not_name_is_refused(clients, role, method, path, query, field):
    reply = await clients[role].request(method, path, params=query)
    assert (reply.status_code, reply.json()["field"]) == (400, field)


@pytest.mark.parametrize("name", [ZERO, "é", "a b", "line-break\n", "'--"])
async def test_a_path_that_can_name_nothing_leads_nowhere(clients, name):
    named = quote(name, safe="")
    for method in ("GET", "PATCH", "DELETE"):
        body = {"json": {}} if method == "PATCH" else {}
        for path in (f"/api/keys/{named}", f"/api/tenants/{named}"):
            reply = await clients["operator"].request(method, path, **body)
            assert reply.status_code == 404, path
    assert (await clients["operator"].get(f"/api/tenants/{named}/export")).status_code == 404


async def test_the_export_is_silent_about_what_the_work_cost_the_operator(rest, clients):
    reply = await clients["owner"].get("/api/tenants/refused-names/export")
    assert reply.status_code == 200
    assert "provider" not in reply.text


async def test_a_page_elsewhere_may_not_read_and_one_of_the_list_may(rest, clients):
    credential = clients["owner"].headers["authorization"]
    asked = {"access-control-request-method": "DELETE"}
    async with httpx.AsyncClient(base_url=rest.url) as browser:
        for origin, allowed in (
            ("https://app.example", True),
            ("https://app.example.evil.example", False),
            ("http://app.example", False),
            ("null", False),
        ):
            headers = {"origin": origin, "authorization": credential}
            told = (await browser.get("/api/usage", headers=headers)).headers
            assert told.get("access-control-allow-origin") == (origin if allowed else None)
            assert "origin" in told["vary"].lower()
            ready = await browser.options("/api/keys", headers={"origin": origin} | asked)
            assert (ready.status_code == 200) == allowed
            assert ready.headers.get("access-control-allow-origin") == (origin if allowed else None)
