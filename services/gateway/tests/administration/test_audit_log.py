"""The audit log: who did what, written with the change, and never altered after."""

import ast
import inspect
import json
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import DatabaseError

import atrium_gateway
from atrium_common.errors import Conflict, NotFound
from atrium_gateway.audit.domain import Action, Actor
from atrium_gateway.audit.log import AuditFilter
from atrium_gateway.audit.tables import audit_entries
from atrium_gateway.audit.tenants import AuditedTenants
from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.tenants.repository import TenantRepository

ADA = Actor(subject="ada", tenant="acme", key_id="k1", request_id="req_1")
SOURCES = Path(atrium_gateway.__file__).parent


async def entries(desk, **wanted):
    found = await desk.log(scope=None).entries(AuditFilter(**wanted), limit=100)
    return list(found)[::-1]


async def test_every_change_says_who_what_when_and_from_what_to_what(desk, new_tenant, new_key):
    tenants = desk.tenants(ADA, scope=None)
    await tenants.create_tenant(new_tenant("acme"))
    await tenants.set_blocked("acme", blocked=True)
    await tenants.set_limit("acme", Limit("chat", Unit.TOKENS, Window.MONTH, 10))
    await tenants.set_limit("acme", Limit("chat", Unit.TOKENS, Window.MONTH, 20))
    await tenants.remove_limit("acme", selector="chat", unit=Unit.TOKENS, window=Window.MONTH)
    key, made = new_key("acme")
    await tenants.create_key(key)
    await tenants.rotate_key(key.id, digest=bytes(32), now=desk.now(), grace=timedelta(hours=1))
    await tenants.revoke_key(key.id, now=desk.now())
    found = await entries(desk)
    assert [entry.action for entry in found] == [
        Action.TENANT_CREATE,
        Action.TENANT_BLOCK,
        Action.LIMIT_SET,
        Action.LIMIT_SET,
        Action.LIMIT_REMOVE,
        Action.KEY_CREATE,
        Action.KEY_ROTATE,
        Action.KEY_REVOKE,
    ]
    assert {(entry.by, entry.tenant) for entry in found} == {(ADA, "acme")}
    assert {entry.at for entry in found} == {desk.now()}
    assert found[1].before == {"blocked": False}
    assert found[1].after == {"blocked": True}
    assert (found[2].before, found[3].before) == (None, {"amount": 10})
    assert (found[3].after, found[4].before, found[4].after) == (
        {"amount": 20},
        {"amount": 20},
        None,
    )
    assert found[3].target == "tenant:chat:tokens:month"
    assert found[7].after["revoked_at"] == desk.now().isoformat()
    async with desk.engine.connect() as connection:
        kept = str((await connection.execute(select(audit_entries))).all())
    assert made.text not in kept
    assert made.text.rpartition("_")[2] not in kept
    assert made.digest.hex() not in kept


async def test_what_fails_leaves_no_entry_and_an_entry_that_fails_leaves_no_change(
    desk, new_tenant, new_key
):
    tenants = desk.tenants(ADA, scope=None)
    await tenants.create_tenant(new_tenant("acme"))
    with pytest.raises(Conflict):
        await tenants.create_tenant(new_tenant("acme"))
    with pytest.raises(NotFound):
        await tenants.set_blocked("nobody", blocked=True)
    with pytest.raises(NotFound):
        await tenants.revoke_key("nothing", now=desk.now())
    (entry,) = await entries(desk)
    twice = AuditedTenants(desk.engine, by=ADA, now=desk.now, new_id=lambda: entry.id)
    key, _ = new_key("acme")
    with pytest.raises(DatabaseError):
        await twice.create_key(key)
    assert await tenants.key(key.id) is None
    assert len(await entries(desk)) == 1


async def test_filters_and_pages(desk, new_tenant):
    await desk.tenants(ADA, scope=None).create_tenant(new_tenant("acme"))
    bob = desk.tenants(Actor(subject="bob"), scope=None)
    await bob.create_tenant(new_tenant("other"))
    for blocked in (True, False):
        await bob.set_blocked("acme", blocked=blocked)
    assert len(await entries(desk, tenant="acme")) == 3
    assert [entry.tenant for entry in await entries(desk, actor="ada")] == ["acme"]
    assert len(await entries(desk, action="tenant.unblock")) == 1
    assert len(await entries(desk, target="other")) == 1
    assert await entries(desk, start=desk.now() + timedelta(seconds=1)) == []
    assert await entries(desk, end=desk.now()) == []
    log = desk.log(scope=None)
    first = await log.entries(AuditFilter(), limit=3)
    rest = await log.entries(AuditFilter(), limit=3, after=first[-1].id)
    assert [entry.id for entry in [*first, *rest]] == [
        entry.id for entry in (await entries(desk))[::-1]
    ]


async def test_the_database_refuses_to_alter_an_entry(desk, new_tenant):
    await desk.tenants(ADA, scope=None).create_tenant(new_tenant("acme"))
    (before,) = await entries(desk)
    wipes = [update(audit_entries).values(actor="nobody"), delete(audit_entries)]
    if desk.engine.dialect.name == "postgresql":
        wipes.append(text("TRUNCATE audit_entries"))
    for statement in wipes:
        with pytest.raises(DatabaseError, match="never changed"):
            async with desk.engine.begin() as connection:
                await connection.execute(statement)
    assert await entries(desk) == [before]


def test_only_the_log_touches_the_table_and_never_to_alter_it():
    names = {file for file in SOURCES.rglob("*.py") if "audit_entries" in file.read_text()}
    folder = SOURCES / "migrations" / "versions"
    assert names == {
        SOURCES / "audit" / "log.py",
        SOURCES / "audit" / "tables.py",
        folder / "r0006_administration.py",
    }
    calls = called(SOURCES / "audit" / "log.py")
    assert {"insert", "select"} <= calls
    assert not calls & {"update", "delete", "text", "exec_driver_sql"}


def test_every_change_that_the_repository_can_make_is_audited():
    """A method that writes, as one with `changed(connection)` does, has to be overridden."""
    writes = set()
    for kind in TenantRepository.__mro__[:-1]:
        for name, method in vars(kind).items():
            if inspect.iscoroutinefunction(method):
                body = inspect.getsource(method)
                if "changed(connection)" in body or "self._set(" in body:
                    writes.add(name)
    writes = {name for name in writes if not name.startswith("_")}
    assert len(writes) > 5
    for name in writes:
        assert getattr(AuditedTenants, name) is not getattr(TenantRepository, name), name


def called(file: Path) -> set[str]:
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    functions = [call.func for call in calls]
    return {node.id for node in functions if isinstance(node, ast.Name)} | {
        node.attr for node in functions if isinstance(node, ast.Attribute)
    }


async def test_the_command_line_is_audited_too(tmp_path, monkeypatch, run_atrium):
    await run_atrium("tenant", "create", "acme")
    made = json.loads(await run_atrium("key", "create", "acme", "--json"))
    await run_atrium("key", "revoke", made["id"])
    listed = json.loads(await run_atrium("audit", "--tenant", "acme", "--json"))
    assert [entry["action"] for entry in listed] == ["key.revoke", "key.create", "tenant.create"]
    assert all(entry["actor"].startswith("cli:") for entry in listed)
    assert made["key"] not in json.dumps(listed)
