"""PostgreSQL itself hides a tenant's rows from the others; a scope names whose are seen."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, func, insert, inspect, select, text
from sqlalchemy.exc import DatabaseError, ProgrammingError

import atrium_gateway
from atrium_common.errors import NotFound
from atrium_gateway.audit.domain import Actor
from atrium_gateway.audit.log import AuditFilter
from atrium_gateway.audit.tables import audit_entries
from atrium_gateway.database import metadata, upgrade
from atrium_gateway.database_scope import SCOPED_ROLE, TenantScope
from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.tenants.tables import api_keys, tenant_limits, tenants

ADA = Actor(subject="ada", tenant="acme")
OWN = {"tenants": "id"}
"""Tables of tenants whose column is not called ``tenant``."""


def on_postgres(test):
    return pytest.mark.parametrize("desk", ["postgresql"], indirect=True)(test)


@pytest.fixture
async def two(desk, new_tenant, new_key):
    """Two tenants with a limit and a key each."""
    everyone = desk.tenants(ADA, scope=None)
    for name in ("acme", "other"):
        await everyone.create_tenant(new_tenant(name))
        await everyone.set_limit(name, Limit("*", Unit.REQUESTS, Window.DAY, 7))
        await everyone.create_key(new_key(name)[0])
    return desk


async def count(connection, table) -> int:
    return await connection.scalar(select(func.count()).select_from(table))


@on_postgres
async def test_without_the_variable_a_query_sees_nothing(two):
    async with two.engine.begin() as connection:
        assert await count(connection, tenants) == 2  # whose tables these are
        await connection.execute(text(f"SET LOCAL ROLE {SCOPED_ROLE}"))
        for table in (tenants, api_keys, tenant_limits, audit_entries):
            assert await count(connection, table) == 0


@on_postgres
async def test_a_scope_sees_and_writes_one_tenant_only(two, new_key):
    scope = TenantScope(two.engine, "acme")
    async with scope.connect() as connection:
        for table in (tenants, api_keys, tenant_limits):
            assert await count(connection, table) == 1
        assert await count(connection, audit_entries) == 3
    async with two.engine.connect() as connection:  # the pool's next user is itself again
        assert await count(connection, tenants) == 2
    theirs, _ = new_key("other")
    with pytest.raises(ProgrammingError, match="row-level security"):
        async with scope.begin() as connection:
            await connection.execute(
                insert(api_keys).values(
                    id=theirs.id,
                    tenant="other",
                    name="",
                    digest=theirs.digest,
                    scopes="*",
                    roles="",
                    created_at=theirs.created_at,
                )
            )


@on_postgres
async def test_no_code_of_a_scope_reaches_another_tenant(two):
    mine = two.tenants(ADA, scope="acme")
    (their_key,) = await two.tenants(ADA, scope=None).list_keys("other")
    assert await mine.key(their_key.id) is None
    assert await mine.tenant("other") is None
    assert [tenant.id for tenant in await mine.list_tenants()] == ["acme"]
    with pytest.raises(NotFound):
        await mine.revoke_key(their_key.id, now=two.now())
    with pytest.raises(NotFound):
        await mine.set_blocked("other", blocked=True)
    with pytest.raises(NotFound):
        await mine.set_limit("other", Limit("*", Unit.REQUESTS, Window.DAY, 1))
    assert len(await two.log(scope="acme").entries(AuditFilter(), limit=10)) == 3
    assert await two.log(scope="acme").entries(AuditFilter(tenant="other"), limit=10) == []


@on_postgres
async def test_what_a_tenants_admin_does_works_within_its_scope(two, new_key):
    mine = two.tenants(ADA, scope="acme")
    key, _ = new_key("acme")
    await mine.create_key(key)
    await mine.change_key(replace(key, name="ci"))
    await mine.rotate_key(key.id, digest=bytes(32), now=two.now(), grace=timedelta(hours=1))
    limit = Limit("chat", Unit.TOKENS, Window.DAY, 9)
    await mine.set_limit("acme", limit, subject=f"key:{key.id}")
    await mine.remove_limit(
        "acme", selector="chat", unit=Unit.TOKENS, window=Window.DAY, subject=f"key:{key.id}"
    )
    await mine.revoke_key(key.id, now=two.now())
    await mine.set_name("acme", "Acme Ltd")
    await mine.set_plan("acme", "pro")
    await mine.set_share("acme", weight=2, unlimited=False)
    tenant = await mine.tenant("acme")
    assert (tenant.name, tenant.plan, tenant.weight) == ("Acme Ltd", "pro", 2)
    assert tenant.plan_limits
    assert len(await two.log(scope="acme").entries(AuditFilter(), limit=99)) == 3 + 9


@on_postgres
async def test_a_scope_may_not_delete_its_books(two):
    scope = TenantScope(two.engine, "acme")
    for statement in (
        "DELETE FROM usage_events",
        "UPDATE usage_hourly SET requests = 0",
        "DELETE FROM audit_entries",
        "UPDATE plan_limits SET amount = 9",
        "SELECT * FROM tenant_deletions",
    ):
        with pytest.raises(DatabaseError, match="permission denied"):
            async with scope.begin() as connection:
                await connection.execute(text(statement))


def tables_of_tenants(connection: Connection) -> set[str]:
    found = inspect(connection)
    return {
        table
        for table in found.get_table_names()
        if OWN.get(table, "tenant") in {column["name"] for column in found.get_columns(table)}
    }


@on_postgres
async def test_every_table_of_tenants_is_protected(desk):
    protected = text("SELECT relname FROM pg_class WHERE relrowsecurity")
    async with desk.engine.connect() as connection:
        wanted = await connection.run_sync(tables_of_tenants)
        assert {"tenants", "api_keys", "usage_events", "audit_entries"} <= wanted
        assert wanted == set(await connection.scalars(protected))
    for table in metadata.tables.values():
        if OWN.get(table.name, "tenant") in table.columns:
            assert table.name in wanted


def _migrate(connection: Connection, to: str) -> None:
    config = Config()
    folder = Path(atrium_gateway.__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder))
    config.attributes["connection"] = connection
    command.downgrade(config, to)


async def test_the_migration_goes_down_and_up_again(two):
    async with two.engine.connect() as connection:
        await connection.run_sync(_migrate, "0005")
        await connection.commit()
        tables = await connection.run_sync(lambda c: set(inspect(c).get_table_names()))
        assert "audit_entries" not in tables
        assert await count(connection, tenants) == 2
        if two.engine.dialect.name == "postgresql":
            await connection.execute(text(f"SET LOCAL ROLE {SCOPED_ROLE}"))
            with pytest.raises(ProgrammingError, match="permission denied"):
                await count(connection, tenants)
    await upgrade(two.engine)
    assert await two.log(scope=None).entries(AuditFilter(), limit=10) == []
    assert len(await two.tenants(ADA, scope="acme").list_keys("acme")) == 1
