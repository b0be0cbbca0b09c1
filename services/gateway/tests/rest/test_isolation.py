"""Every route as every role of the same tenant and of another: one table says who gets in.

A route without an entry fails, and so does one that lets in whom the table does not name.
"""

from dataclasses import dataclass

import httpx
import pytest

from atrium_gateway.api.routes import PATHS
from atrium_gateway.auth.keys import key_id_of
from atrium_gateway.tenants.domain import KEY_LEVEL

OURS, THEIRS = "isolation-ours", "isolation-theirs"
ROLES = ("", "viewer", "developer", "admin", "owner", "operator")
PUBLIC = frozenset({*ROLES, "nobody"})
"""Needs no credential."""
ANYONE = frozenset(ROLES)
SEEING = ANYONE
WORKING = ANYONE - {"viewer"}
KEEPING = frozenset({"developer", "admin", "owner", "operator"})
ADMINS = frozenset({"admin", "owner", "operator"})
OWNERS = frozenset({"owner", "operator"})
OPERATORS = frozenset({"operator"})
NOT_IN = frozenset({401, 403})
HIDDEN = frozenset({401, 403, 404})
"""How a record that is another tenant's is answered for."""


@dataclass(frozen=True)
class Rule:
    """Who gets into a route.

    Attributes:
        own: Roles that do within their own tenant.
        path: The path with its parameters filled in; those of a record of `THEIRS`.
        query: Names `THEIRS`; ``None`` where a request can't name another tenant.
        body: A body that says nothing wrong, or the fields of a form with a file.
        file: ``"sound"``, ``"picture"``, or ``"image"`` for a picture of that field.
        ends: It would end the tenant of the tests; who may is tested elsewhere.
    """

    own: frozenset[str]
    path: str = ""
    query: dict[str, str] | None = None
    body: dict[str, object] | None = None
    file: str = ""
    ends: bool = False


OTHER = {"tenant": THEIRS}
RULES = {
    ("POST", "/v1/chat/completions"): Rule(
        WORKING, body={"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    ),
    ("POST", "/v1/embeddings"): Rule(WORKING, body={"model": "fake-embedding", "input": "a"}),
    ("POST", "/v1/completions"): Rule(WORKING, body={"prompt": "a", "max_tokens": 1}),
    ("POST", "/v1/audio/speech"): Rule(WORKING, body={"input": "a", "voice": "tone-a"}),
    ("POST", "/v1/audio/transcriptions"): Rule(WORKING, body={"model": ""}, file="sound"),
    ("POST", "/v1/audio/translations"): Rule(WORKING, body={"model": ""}, file="sound"),
    ("POST", "/v1/images/generations"): Rule(WORKING, body={"prompt": "a"}),
    ("POST", "/v1/images/edits"): Rule(WORKING, body={"prompt": "a"}, file="image"),
    ("POST", "/api/speech-to-text"): Rule(WORKING, body={}, file="sound"),
    ("POST", "/api/text-to-speech"): Rule(WORKING, body={"text": "a"}),
    ("POST", "/api/text-to-image"): Rule(WORKING, body={"prompt": "a"}),
    ("POST", "/api/image-to-image"): Rule(WORKING, body={"prompt": "a"}, file="image"),
    ("POST", "/api/image-to-text"): Rule(WORKING, body={}, file="picture"),
    ("POST", "/api/ocr"): Rule(WORKING, body={}, file="picture"),
    ("POST", "/api/voices"): Rule(WORKING, body={"name": "a", "consent": "true"}, file="sound"),
    ("GET", "/v1/realtime"): Rule(PUBLIC),
    ("GET", "/v1/models"): Rule(ANYONE),
    ("GET", "/v1/models/{model:path}"): Rule(ANYONE, "/v1/models/fake-chat"),
    ("GET", "/api/models"): Rule(ANYONE),
    ("POST", "/api/models/{model}/load"): Rule(OPERATORS, "/api/models/not-there/load"),
    ("POST", "/api/models/{model}/unload"): Rule(OPERATORS, "/api/models/not-there/unload"),
    ("GET", "/api/voices"): Rule(WORKING),
    ("DELETE", "/api/voices/{voice}"): Rule(WORKING, "/api/voices/{voice}"),
    ("GET", "/api/usage"): Rule(SEEING, query=OTHER),
    ("GET", "/api/usage/events"): Rule(SEEING, query=OTHER),
    ("GET", "/api/usage/summary"): Rule(SEEING, query=OTHER),
    ("GET", "/api/usage/statement"): Rule(SEEING, query=OTHER),
    ("GET", "/api/keys"): Rule(KEEPING, query=OTHER),
    ("POST", "/api/keys"): Rule(ADMINS, query=OTHER, body={}),
    ("POST", "/api/tokens"): Rule(WORKING, body={"scopes": ["chat"]}),
    ("GET", "/api/keys/{key}"): Rule(KEEPING, "/api/keys/{key}", query=OTHER),
    ("PATCH", "/api/keys/{key}"): Rule(ADMINS, "/api/keys/{key}", query=OTHER, body={}),
    ("POST", "/api/keys/{key}/rotate"): Rule(
        ADMINS, "/api/keys/{key}/rotate", query=OTHER, body={}
    ),
    ("DELETE", "/api/keys/{key}"): Rule(ADMINS, "/api/keys/{key}", query=OTHER),
    ("GET", "/api/tenants"): Rule(OPERATORS),
    ("POST", "/api/tenants"): Rule(OPERATORS, body={"id": THEIRS}),
    ("GET", "/api/tenants/{tenant}"): Rule(SEEING, "/api/tenants/{tenant}"),
    ("PATCH", "/api/tenants/{tenant}"): Rule(ADMINS, "/api/tenants/{tenant}", body={}),
    ("DELETE", "/api/tenants/{tenant}"): Rule(OWNERS, "/api/tenants/{tenant}", ends=True),
    ("GET", "/api/tenants/{tenant}/export"): Rule(OWNERS, "/api/tenants/{tenant}/export"),
    ("GET", "/api/plans"): Rule(OPERATORS),
    ("PUT", "/api/plans/{plan}"): Rule(OPERATORS, "/api/plans/isolation", body={}),
    ("DELETE", "/api/plans/{plan}"): Rule(OPERATORS, "/api/plans/not-there"),
    ("GET", "/api/limits"): Rule(SEEING, query=OTHER),
    ("PUT", "/api/limits"): Rule(
        ADMINS,
        query=OTHER,
        body={"unit": "tokens", "window": "day", "amount": 1, "user": "ada"},
    ),
    ("DELETE", "/api/limits"): Rule(
        ADMINS, query=OTHER | {"unit": "tokens", "window": "day", "user": "ada"}
    ),
    ("GET", "/api/prices"): Rule(SEEING),
    ("POST", "/api/prices"): Rule(OPERATORS, body={"model": "nothing"}),
    ("GET", "/api/audit"): Rule(ADMINS, query=OTHER),
    ("GET", "/health"): Rule(PUBLIC),
    ("GET", "/health/live"): Rule(PUBLIC),
    ("GET", "/health/ready"): Rule(PUBLIC),
}


NAMING = [
    route
    for route, rule in RULES.items()
    if (rule.query or rule.path) and not route[1].startswith("/v1/models")  # everyone's
]
"""Routes whose requests can name what is another tenant's."""
FORGED = "atr_" + "a" * 12 + "_" + "b" * 52


@dataclass(frozen=True)
class Doors:
    """What the tests knock with.

    Attributes:
        client: Has no credential of its own.
        keys: A key of `OURS` by role.
        names: What fills the parameters of paths, by tenant.
        files: A form's file by kind.
    """

    client: httpx.AsyncClient
    keys: dict[str, str]
    names: dict[str, dict[str, str]]
    files: dict[str, dict[str, tuple[str, bytes]]]

    async def ask(self, credential, route, *, tenant, query, names=None):
        """Asks once; gives the status."""
        method, template = route
        rule = RULES[route]
        path = rule.path.format(**(names or self.names[tenant])) if rule.path else template
        body = {"data": rule.body, "files": self.files[rule.file]} if rule.file else {}
        reply = await self.client.request(
            method,
            path,
            params=query,
            headers={"authorization": f"Bearer {credential}"} if credential else {},
            **(body or {"json": rule.body}),
        )
        return reply.status_code


@pytest.fixture(scope="session")
async def credentials(rest):
    """A key of every role, and the records of both tenants that paths name."""
    keys = {role: await rest.key(OURS, roles=(role,) if role else ()) for role in ROLES}
    names = {}
    for tenant in (OURS, THEIRS):
        made = key_id_of(await rest.key(tenant))
        names[tenant] = {"key": made, "tenant": tenant, "voice": "not-mine"}
    return keys, names


@pytest.fixture
async def doors(rest, credentials, recording, picture):
    """What to knock with."""
    files = {
        "sound": {"file": ("a.wav", recording)},
        "picture": {"file": ("a.png", picture())},
        "image": {"image": ("a.png", picture())},
    }
    async with httpx.AsyncClient(base_url=rest.url, timeout=30) as client:
        yield Doors(client, *credentials, files)


def test_every_route_has_an_entry_and_every_entry_a_route():
    assert {(path.method, path.path) for path in PATHS} == set(RULES)


def within(query):
    """A query that names nobody else."""
    return {name: value for name, value in (query or {}).items() if name != "tenant"}


@pytest.mark.parametrize("route", list(RULES), ids=" ".join)
async def test_only_who_the_table_names_gets_in(doors, route):
    rule = RULES[route]
    query = within(rule.query)
    for credential in ("", FORGED):
        status = await doors.ask(credential, route, tenant=OURS, query=query)
        assert (status == 401) == ("nobody" not in rule.own)
    names = doors.names[OURS]
    if route[0] == "DELETE" or route[1].endswith("/rotate"):
        names = names | {"key": "a" * 12}  # not there: who gets in finds nothing
    for role in ROLES:
        if role in rule.own and rule.ends:
            continue
        key = doors.keys[role]
        status = await doors.ask(key, route, tenant=OURS, query=query, names=names)
        assert (status not in NOT_IN) == (role in rule.own), (role, status)
        assert status < 500 or route[1].startswith("/health")


@pytest.mark.parametrize("route", NAMING, ids=" ".join)
async def test_no_role_but_an_operator_reaches_another_tenant(rest, doors, route):
    rule = RULES[route]
    before = await state_of_theirs(rest)
    for role in set(ROLES) - OPERATORS:
        key = doors.keys[role]
        named = await doors.ask(key, route, tenant=THEIRS, query=rule.query)
        assert named in HIDDEN, (role, named)
        if rule.path:
            status = await doors.ask(key, route, tenant=THEIRS, query=within(rule.query))
            assert status in HIDDEN, (role, status)
    assert await state_of_theirs(rest) == before


async def state_of_theirs(rest):
    """Everything of the other tenant that a request could have changed."""
    tenant = await rest.core.tenants.tenant(THEIRS)
    keys = await rest.core.tenants.list_keys(THEIRS)
    return tenant, [(key.id, key.digest, key.name, key.revoked_at) for key in keys]


async def test_another_tenants_key_can_not_be_limited(rest, doors):
    async with rest.client(doors.keys["owner"]) as client:
        key = doors.names[THEIRS]["key"]
        body = {"unit": "tokens", "window": "day", "amount": 0, "key": key}
        assert (await client.put("/api/limits", json=body)).status_code == 404
    tenant = await rest.core.tenants.tenant(THEIRS)
    assert not any(subject.startswith(KEY_LEVEL) for subject in tenant.scoped)
