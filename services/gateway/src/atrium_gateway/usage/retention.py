"""Deletes old events once their roll-ups tell the same; `atrium usage retain` runs it.

Sums stay for ever. An event whose hour does not add up is kept: what the roll-ups lack,
nothing else knows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import delete, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from atrium_gateway.database import upsert
from atrium_gateway.usage.lock import write_alone
from atrium_gateway.usage.tables import (
    COUNTS,
    RETAINED,
    ledger_marks,
    usage_events,
    usage_hourly,
)

_log = structlog.get_logger(__name__)

SHORTEST: Final = timedelta(days=35)
"""Events younger than this are never deleted: months whose edges are not those of hours are
counted from them, and what a spool brings later than this is not counted (`late.py`)."""

_HOUR_MS: Final = 3_600_000
_HOURS_AT_ONCE: Final = 24
_SUMS: Final = (*COUNTS, "provider_cost_nano")

Sums = Mapping[int, Sequence[int]]
"""Hour -> number of events, then the sums in the order of `_SUMS`."""


@dataclass(frozen=True, slots=True)
class Retained:
    """What came of it.

    Attributes:
        deleted: Events that were deleted.
        kept: Old events that were kept because the roll-ups lack something of their hour.
    """

    deleted: int
    kept: int


class Retention:
    """Deletes events by whole hours, tenant by tenant; runs beside working gateways.

    Args:
        engine: The database, upgraded.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def apply(self, before: datetime, *, dry_run: bool = False) -> Retained:
        """Deletes what was admitted before the hour of `before`.

        Args:
            before: Aware time; the caller sees to `SHORTEST`.
            dry_run: Counts what would be deleted.
        """
        last_hour = int(before.timestamp() * 1000) // _HOUR_MS
        if not dry_run:
            await self._mark(last_hour * _HOUR_MS)
        deleted = kept = 0
        for tenant in await self._tenants():
            hour = await self._oldest(tenant, 0)
            while hour is not None and hour < last_hour:
                end = min(hour + _HOURS_AT_ONCE, last_hour)
                gone, left = await self._hours(tenant, hour, end, dry_run=dry_run)
                deleted, kept = deleted + gone, kept + left
                hour = await self._oldest(tenant, end)
        return Retained(deleted, kept)

    async def _mark(self, before_ms: int) -> None:
        """Notes from when on every event is remembered, before any is deleted.

        What a gateway adds from now on, it adds in view of the mark (`late.py`).
        """
        async with self._engine.connect() as connection:
            await write_alone(connection)
            made = upsert(connection.dialect.name)(ledger_marks).values(
                name=RETAINED, value=before_ms
            )
            later = made.excluded.value > ledger_marks.c.value
            await connection.execute(
                made.on_conflict_do_update(
                    index_elements=[ledger_marks.c.name],
                    set_={"value": made.excluded.value},
                    where=later,
                )
            )
            await connection.commit()

    async def _tenants(self) -> Sequence[str]:
        async with self._engine.connect() as connection:
            rows = await connection.execute(select(usage_hourly.c.tenant).distinct())
            return sorted(row.tenant for row in rows)

    async def _oldest(self, tenant: str, hour: int) -> int | None:
        """The first hour from `hour` on that has events."""
        oldest = select(func.min(usage_events.c.started_ms)).where(
            usage_events.c.tenant == tenant, usage_events.c.started_ms >= hour * _HOUR_MS
        )
        async with self._engine.connect() as connection:
            found = await connection.scalar(oldest)
        return None if found is None else int(found) // _HOUR_MS

    async def _hours(self, tenant: str, first: int, end: int, *, dry_run: bool) -> tuple[int, int]:
        """Deletes the hours of ``[first, end)`` that add up; returns deleted and kept events."""
        async with self._engine.begin() as connection:
            # Events before roll-ups: what a gateway adds in between makes the latter larger.
            events = await _events(connection, tenant, first, end)
            rolled = await _rolled_up(connection, tenant, first, end)
            whole = {hour for hour, sums in events.items() if _covers(rolled.get(hour), sums)}
            lacking = sorted(events.keys() - whole)
            if lacking:
                _log.error("rollups_incomplete", tenant=tenant, hours=lacking)
            if not dry_run:
                for start, stop in _runs(sorted(whole)):
                    await connection.execute(
                        delete(usage_events).where(
                            usage_events.c.tenant == tenant,
                            usage_events.c.started_ms >= start * _HOUR_MS,
                            usage_events.c.started_ms < stop * _HOUR_MS,
                        )
                    )
        kept = sum(events[hour][0] for hour in lacking)
        return sum(events[hour][0] for hour in whole), kept


async def _events(connection: AsyncConnection, tenant: str, first: int, end: int) -> Sums:
    table = usage_events.c
    # Not parameters: PostgreSQL would take them for others in GROUP BY.
    hour = (table.started_ms - table.started_ms % literal_column(str(_HOUR_MS))).label("start")
    query = (
        select(hour, func.count(), *(func.sum(table[name]) for name in _SUMS))
        .where(
            table.tenant == tenant,
            table.started_ms >= first * _HOUR_MS,
            table.started_ms < end * _HOUR_MS,
        )
        .group_by(hour)
    )
    rows = await connection.execute(query)
    return {int(row[0]) // _HOUR_MS: [int(number) for number in row[1:]] for row in rows}


async def _rolled_up(connection: AsyncConnection, tenant: str, first: int, end: int) -> Sums:
    table = usage_hourly.c
    query = (
        select(table.hour, func.sum(table.events), *(func.sum(table[name]) for name in _SUMS))
        .where(table.tenant == tenant, table.hour >= first, table.hour < end)
        .group_by(table.hour)
    )
    rows = await connection.execute(query)
    return {int(row[0]): [int(number) for number in row[1:]] for row in rows}


def _covers(rolled: Sequence[int] | None, sums: Sequence[int]) -> bool:
    return rolled is not None and all(a >= b for a, b in zip(rolled, sums, strict=True))


def _runs(hours: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Joins neighbours: first hour and one past the last of each run of `hours`, sorted."""
    start = stop = None
    for hour in hours:
        if start is None or stop != hour:
            if start is not None and stop is not None:
                yield start, stop
            start = hour
        stop = hour + 1
    if start is not None and stop is not None:
        yield start, stop
