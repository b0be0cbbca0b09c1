"""The revision about identity, with keys that are there, up and down, on either database."""

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

import atrium_gateway
from atrium_gateway.database import open_engine, upgrade
from atrium_gateway.tenants.repository import TenantRepository

_TENANT = """
INSERT INTO tenants (id, name, blocked, unlimited, weight, created_at)
VALUES ('acme', 'Acme', false, false, 1.0, '2026-03-14 12:30:00+00:00')
"""
_KEY = """
INSERT INTO api_keys (id, tenant, name, digest, scopes, roles, created_at)
VALUES ('aaaaaaaaaaaa', 'acme', 'ci', :digest, 'chat', '', '2026-03-14 12:30:00+00:00')
"""


def _to(connection: Connection, revision: str, *, up: bool) -> None:
    config = Config()
    folder = Path(atrium_gateway.__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder))
    config.attributes["connection"] = connection
    (command.upgrade if up else command.downgrade)(config, revision)


@pytest.fixture(params=["sqlite", "postgresql"])
async def engine(request, tmp_path):
    url = f"sqlite+aiosqlite:///{tmp_path}/x.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("real_postgres").new_database("identity_migration")
    opened = open_engine(url)
    yield opened
    await opened.dispose()


async def test_keys_of_the_past_may_use_every_model_from_anywhere(engine):
    async with engine.connect() as connection:
        await connection.run_sync(_to, "0004", up=True)
        await connection.execute(text(_TENANT))
        await connection.execute(text(_KEY), {"digest": bytes(32)})
        await connection.commit()
        await connection.run_sync(_to, "0005", up=True)
        await connection.run_sync(_to, "0004", up=False)
        await connection.run_sync(_to, "0005", up=True)
        await connection.commit()
    await upgrade(engine)
    key = await TenantRepository(engine).key("aaaaaaaaaaaa")
    assert (key.tenant, key.name, key.digest, key.scopes) == ("acme", "ci", bytes(32), {"chat"})
    assert (key.models, key.networks, key.last_used_at) == (frozenset(), (), None)
    assert (key.previous_digest, key.previous_until) == (None, None)
