"""How a batch of events and its roll-ups reach each database; the writer picks one.

PostgreSQL gets a batch as one statement with one JSON document: a statement per row costs
several times what the database itself needs. SQLite gets the rows as they are.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
from sqlalchemy import Dialect, Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from atrium_gateway.database import DriverInsert, DriverValue
from atrium_gateway.usage.rollup import RollUps
from atrium_gateway.usage.tables import (
    SUMS,
    usage_daily,
    usage_events,
    usage_hourly,
    usage_monthly,
    usage_nameless,
)

Rows = Sequence[Mapping[str, DriverValue]]


class Batch(Protocol):
    """Writes rows within the transaction of a connection."""

    async def insert_events(self, connection: AsyncConnection, rows: Rows) -> set[str]:
        """Inserts rows of `usage_events` whose ids are not there yet; returns those ids."""
        ...

    async def add_sums(self, connection: AsyncConnection, sums: RollUps) -> None:
        """Adds sums to those that are there: hours, then days, then months."""
        ...


class PostgresBatch:
    """One statement for all rows, taken in their order: who sorts them can't deadlock."""

    def __init__(self) -> None:
        names = ", ".join(column.name for column in usage_events.columns)
        self._insert = (
            f"INSERT INTO usage_events ({names}) SELECT {names} "
            f"{_rows_of(usage_events)} ON CONFLICT (id) DO NOTHING RETURNING id"
        )
        self._add_hours, self._add_nameless, self._add_days, self._add_months = map(
            _addition, (usage_hourly, usage_nameless, usage_daily, usage_monthly)
        )

    async def insert_events(self, connection: AsyncConnection, rows: Rows) -> set[str]:
        """Inserts what is new."""
        inserted = await connection.exec_driver_sql(self._insert, (_json(rows),))
        return {row[0] for row in inserted}

    async def add_sums(self, connection: AsyncConnection, sums: RollUps) -> None:
        """Adds them up."""
        await connection.exec_driver_sql(self._add_hours, (_json(sums.hourly),))
        await connection.exec_driver_sql(self._add_nameless, (_json(sums.nameless),))
        await connection.exec_driver_sql(self._add_days, (_json(sums.daily),))
        await connection.exec_driver_sql(self._add_months, (_json(sums.monthly),))


class SqliteBatch:
    """The driver's own loop over rows, which costs no round trips.

    Args:
        dialect: Dialect of the database.
    """

    def __init__(self, dialect: Dialect) -> None:
        new_only = sqlite.Insert(usage_events).on_conflict_do_nothing(
            index_elements=[usage_events.c.id]
        )
        self._insert = DriverInsert(new_only, dialect)
        self._insert_returning = new_only.returning(usage_events.c.id)
        self._add_hours, self._add_nameless, self._add_days, self._add_months = (
            DriverInsert(_sqlite_addition(table), dialect)
            for table in (usage_hourly, usage_nameless, usage_daily, usage_monthly)
        )

    async def insert_events(self, connection: AsyncConnection, rows: Rows) -> set[str]:
        """Inserts what is new."""
        await connection.exec_driver_sql("SAVEPOINT batch")
        if await self._insert.execute(connection, rows) == len(rows):
            return {str(row["id"]) for row in rows}
        # Some were there already; which ones, only the slower statement tells. The
        # transaction goes on: what was read in it must hold.
        await connection.exec_driver_sql("ROLLBACK TO batch")
        inserted = await connection.execute(self._insert_returning, list(rows))
        return {row[0] for row in inserted}

    async def add_sums(self, connection: AsyncConnection, sums: RollUps) -> None:
        """Adds them up."""
        await self._add_hours.execute(connection, sums.hourly)
        await self._add_nameless.execute(connection, sums.nameless)
        await self._add_days.execute(connection, sums.daily)
        await self._add_months.execute(connection, sums.monthly)


def batch_for(dialect: Dialect) -> Batch:
    """The way into a database of `dialect`."""
    return PostgresBatch() if dialect.name == "postgresql" else SqliteBatch(dialect)


def _addition(table: Table) -> str:
    names = ", ".join(column.name for column in table.columns)
    key = ", ".join(column.name for column in table.primary_key)
    sums = ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in SUMS)
    return (
        f"INSERT INTO {table.name} ({names}) SELECT {names} "
        f"{_rows_of(table)} ON CONFLICT ({key}) DO UPDATE SET {sums}"
    )


def _sqlite_addition(table: Table) -> sqlite.Insert:
    added = sqlite.Insert(table)
    return added.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={name: table.c[name] + added.excluded[name] for name in SUMS},
    )


def _rows_of(table: Table) -> str:
    return f"FROM json_populate_recordset(NULL::{table.name}, CAST(%s AS json))"


def _json(rows: Rows) -> str:
    return msgspec.json.encode(rows).decode()
