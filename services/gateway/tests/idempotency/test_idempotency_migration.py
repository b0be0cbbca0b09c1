"""Migration 0007 goes up and down over a database with data, SQLite and PostgreSQL alike."""

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from answers import keep, totals
from sqlalchemy import Connection, inspect

import atrium_gateway
from atrium_gateway.database import open_engine, upgrade
from atrium_gateway.idempotency.domain import Bounds
from atrium_gateway.idempotency.store import AnswerStore

TABLES = {"idempotency_keys", "idempotency_pieces", "idempotency_totals"}


def down(connection: Connection) -> None:
    config = Config()
    folder = Path(atrium_gateway.__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder))
    config.attributes["connection"] = connection
    command.downgrade(config, "0006")


def tables(connection: Connection) -> set[str]:
    return TABLES & set(inspect(connection).get_table_names())


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_up_and_down_and_up_again(tmp_path, postgres, database, attempt, clock, tenant):
    url = f"sqlite+aiosqlite:///{tmp_path}/x.db"
    if database == "postgresql":
        url = postgres.new_database("migration")
    engine = open_engine(url)
    for _ in range(2):
        await upgrade(engine)
        store = AnswerStore(engine, Bounds(), clock=clock)
        one = attempt()
        assert await store.claim(one) is None
        assert await keep(store, one, b"kept")
        assert await totals(engine, tenant) == (1, 4)
        await store.close()
        async with engine.connect() as connection:
            assert await connection.run_sync(tables) == TABLES
            await connection.run_sync(down)
            await connection.commit()
            assert await connection.run_sync(tables) == set()
    await engine.dispose()
