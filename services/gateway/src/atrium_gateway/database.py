"""The database: engine, column types and upgrade; SQLite and PostgreSQL in one code path.

Used by `core.open_core` and the CLI. Tables live beside what they are for
(`tenants/tables.py`, `usage/tables.py`).
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import (
    URL,
    Connection,
    DateTime,
    Dialect,
    Engine,
    Insert,
    MetaData,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

DriverValue = int | str | bool | None

_BUSY_SECONDS = 10
_UPGRADE_LOCK = 0x6174726975
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    # A spool file is deleted once its rows are committed, so a commit must be on disk.
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}",
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite drops the zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone can't be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def open_engine(url: str) -> AsyncEngine:
    """Opens a pool for `url`; a SQLite file is put into WAL mode, durable at each commit."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_async_engine(parsed, pool_pre_ping=True)
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(parsed, connect_args={"timeout": _BUSY_SECONDS})
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    return engine


def open_blocking(url: URL) -> Engine:
    """Opens the same database for a thread: one connection, made when it is first needed.

    It begins transactions only where it is told to.
    """
    if url.get_backend_name() != "sqlite":
        return create_engine(
            url,
            pool_size=1,
            pool_pre_ping=True,
            isolation_level="AUTOCOMMIT",
            # Plans made while a table was small would read all of it for ever.
            connect_args={"prepare_threshold": None},
        )
    arguments = {"timeout": _BUSY_SECONDS, "isolation_level": None}
    engine = create_engine(url.set(drivername="sqlite"), pool_size=1, connect_args=arguments)
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def upsert(dialect: str) -> "type[postgresql.Insert] | type[sqlite.Insert]":
    """The INSERT class with ON CONFLICT of `dialect`: SQLAlchemy has one per dialect."""
    return postgresql.Insert if dialect == "postgresql" else sqlite.Insert


class DriverInsert:
    """An INSERT of many rows that goes to the driver as it is.

    The ordinary way builds each row's parameters anew, which costs several times what the
    insert itself does. No type conversion takes place.

    Args:
        statement: The INSERT; all columns of its table are written.
        dialect: Dialect of the database.
    """

    def __init__(self, statement: Insert, dialect: Dialect) -> None:
        names = [column.name for column in statement.table.columns]
        compiled = statement.compile(dialect=dialect, column_keys=names)
        self._sql = str(compiled)
        self._order = compiled.positiontup if compiled.positional else None

    async def execute(
        self, connection: AsyncConnection, rows: Sequence[Mapping[str, DriverValue]]
    ) -> int:
        """Runs it; returns how many rows were inserted."""
        if self._order is not None:
            pick = itemgetter(*self._order)
            done = await connection.exec_driver_sql(self._sql, [pick(row) for row in rows])
        else:
            done = await connection.exec_driver_sql(self._sql, [dict(row) for row in rows])
        return done.rowcount


async def upgrade(engine: AsyncEngine) -> None:
    """Brings the schema to the newest revision; does nothing if it is there."""
    async with engine.connect() as connection:
        await connection.run_sync(_upgrade)
        await connection.commit()


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        # Two gateways that start at once must not both build the schema.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def upgrade_blocking(url: str) -> None:
    """The same for a caller without an event loop."""

    async def run() -> None:
        engine = open_engine(url)
        try:
            await upgrade(engine)
        finally:
            await engine.dispose()

    asyncio.run(run())
