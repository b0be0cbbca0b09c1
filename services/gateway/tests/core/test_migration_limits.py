"""Plans and limits on SQLite and on PostgreSQL: the migration with data there, and the tables."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

import atrium_gateway
from atrium_gateway.database import open_engine, upgrade
from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.tenants.domain import Tenant
from atrium_gateway.tenants.repository import TenantRepository
from atrium_gateway.testing.servers import postgres_server

_BEFORE = (
    "INSERT INTO tenants VALUES ('acme', 'Acme', false, false, 1.0, '2026-01-01 00:00:00+00:00')",
    "INSERT INTO tenant_limits VALUES ('acme', 'chat', 'requests', 'hour', 7)",
    "INSERT INTO tenant_limits VALUES ('acme', '*', 'tokens', 'month', NULL)",
)
_NEW = (
    "INSERT INTO tenant_limits VALUES ('acme', 'key:k', 'chat', 'requests', 'hour', 1)",
    "INSERT INTO tenant_limits VALUES ('acme', 'tenant', 'model:m', 'requests', 'hour', 1)",
    "INSERT INTO tenant_limits VALUES ('acme', 'tenant', 'chat', 'cost', 'hour', 1)",
    "UPDATE tenants SET plan = 'pro', time_zone = 'Asia/Tokyo'",
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/x.db"
        return
    with postgres_server() as server:
        yield server.new_database("limits")


def up(connection: Connection, revision: str) -> None:
    command.upgrade(config(connection), revision)


def down(connection: Connection, revision: str) -> None:
    command.downgrade(config(connection), revision)


def config(connection: Connection) -> Config:
    made = Config()
    folder = Path(atrium_gateway.__file__).parent / "migrations"
    made.set_main_option("script_location", str(folder))
    made.attributes["connection"] = connection
    return made


async def test_limits_that_are_there_stay_their_tenants_own(url):
    engine = open_engine(url)
    async with engine.connect() as connection:
        await connection.run_sync(up, "0002")
        for statement in _BEFORE:
            await connection.execute(text(statement))
        await connection.run_sync(up, "0003")
        rows = await connection.execute(text("SELECT * FROM tenant_limits ORDER BY selector"))
        assert [tuple(row) for row in rows] == [
            ("acme", "tenant", "*", "tokens", "month", None),
            ("acme", "tenant", "chat", "requests", "hour", 7),
        ]
        rows = await connection.execute(text("SELECT id, plan, time_zone, fallback FROM tenants"))
        assert [tuple(row) for row in rows] == [("acme", None, "UTC", "local")]
        rows = await connection.execute(text("SELECT * FROM plan_limits ORDER BY 1, amount"))
        assert [tuple(row) for row in rows] == [
            ("free", "*", "requests", "minute", 10),
            ("free", "*", "tokens", "month", 100_000),
            ("pro", "*", "requests", "minute", 100),
            ("pro", "*", "tokens", "month", 1_000_000),
        ]
        for statement in _NEW:
            await connection.execute(text(statement))
        await connection.run_sync(down, "0002")
        rows = await connection.execute(text("SELECT * FROM tenant_limits ORDER BY capability"))
        assert [tuple(row) for row in rows] == [
            ("acme", "*", "tokens", "month", None),
            ("acme", "chat", "requests", "hour", 7),
        ]
        await connection.run_sync(up, "0003")
        await connection.rollback()
    await engine.dispose()


async def test_plans_and_limits_are_replaced_by_those_of_their_kind(url):
    engine = open_engine(url)
    await upgrade(engine)
    tenants = TenantRepository(engine)
    acme = Tenant(
        id="acme",
        name="acme",
        blocked=False,
        unlimited=False,
        weight=1.0,
        limits=(),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        plan="free",
    )
    await tenants.create_tenant(acme)
    await tenants.put_plan("free", "Free of charge")
    for amount in (5, 2**50):
        limit = Limit("model:m", Unit.TOKENS, Window.DAY, amount)
        await tenants.set_limit("acme", limit, subject="user:Zoë")
        await tenants.set_limit("acme", limit)
        await tenants.set_plan_limit("free", limit)
    before = await tenants.version()
    await tenants.remove_plan_limit("free", selector="*", unit=Unit.REQUESTS, window=Window.MINUTE)
    assert await tenants.version() == before + 1
    found = await tenants.tenant("acme")
    (own,), (users,) = found.limits, found.scoped["user:Zoë"]
    assert 0 < users.since < own.since < found.limits_since < before  # when first set
    assert replace(own, since=0) == replace(users, since=0) == limit
    assert found.plan_limits == (Limit("*", Unit.TOKENS, Window.MONTH, 100_000), limit)
    assert [plan.name for plan in await tenants.list_plans()] == [
        "Enterprise",
        "Free of charge",
        "Pro",
    ]
    await engine.dispose()
