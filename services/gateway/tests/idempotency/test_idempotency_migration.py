"""The migrations go up and down over databases with data, SQLite and PostgreSQL alike."""

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from answers import keep, read, totals
from sqlalchemy import Connection, inspect

import atrium_gateway
from atrium_gateway.database import open_engine, upgrade
from atrium_gateway.idempotency.domain import Bounds
from atrium_gateway.idempotency.operation import INLINE_BYTES
from atrium_gateway.idempotency.store import AnswerStore

TABLES = {"idempotency_keys", "idempotency_pieces", "idempotency_totals"}


def down(connection: Connection, revision: str) -> None:
    config = Config()
    folder = Path(atrium_gateway.__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder))
    config.attributes["connection"] = connection
    command.downgrade(config, revision)


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
            await connection.run_sync(down, "0006")
            await connection.commit()
            assert await connection.run_sync(tables) == set()
    await engine.dispose()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_an_answer_is_there_after_its_body_has_moved(
    tmp_path, postgres, database, attempt, clock
):
    url = f"sqlite+aiosqlite:///{tmp_path}/x.db"
    if database == "postgresql":
        url = postgres.new_database("moved")
    engine = open_engine(url)
    await upgrade(engine)
    store = AnswerStore(engine, Bounds(), clock=clock)
    bodies = {"small": b"kept", "none": b"", "large": b"x" * (INLINE_BYTES + 1)}
    for key, body in bodies.items():
        one = attempt(key)
        assert await store.claim(one) is None
        assert await keep(store, one, body)
    async with engine.connect() as connection:
        await connection.run_sync(down, "0009")
        await connection.commit()
    await upgrade(engine)
    for key, body in bodies.items():
        assert await read(store, await store.claim(attempt(key))) == body
    await store.close()
    await engine.dispose()
