"""Moves a tenant's days and months to another time zone: summed anew from the hours.

`follow_zones` looks for tenants whose own zone differs from the kept one; a background task of
the gateway runs it. Until then reports of such a tenant are told from hours: slower, and right.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final
from zoneinfo import ZoneInfoNotFoundError

import structlog
from sqlalchemy import Table, delete, func, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from atrium_gateway.background import looking
from atrium_gateway.database import upsert
from atrium_gateway.tenants.changes import on_change
from atrium_gateway.tenants.tables import tenants
from atrium_gateway.usage.kept import UTC_ZONE, kept_zone
from atrium_gateway.usage.lock import write_alone
from atrium_gateway.usage.reports_calendar import HOUR_MS
from atrium_gateway.usage.reports_cover import Level, Piece, cover_from_hours
from atrium_gateway.usage.reports_query import BUCKET, sums_query
from atrium_gateway.usage.tables import (
    DAILY_DIMENSIONS,
    MONTHLY_DIMENSIONS,
    RETAINED,
    SUMS,
    ledger_marks,
    ledger_tenants,
    usage_daily,
    usage_hourly,
    usage_monthly,
)
from atrium_gateway.usage.zones import Bounds, day_around, month_around

_log = structlog.get_logger(__name__)

_LOOK_SECONDS: Final = 60.0


async def rezone(engine: AsyncEngine, tenant: str, zone: str) -> bool:
    """Keeps a tenant's days and months in `zone` from now on; what is there is moved.

    Args:
        engine: The database, upgraded.
        tenant: Whose.
        zone: IANA name, known to this machine.

    Returns:
        Whether they are in that zone now. They are not if its days begin within hours
        whose events were deleted, nor if the tenant is being deleted.
    """
    async with engine.connect() as connection:
        await write_alone(connection)
        if await kept_zone(connection, tenant) == zone:
            return True
        named = select(ledger_tenants.c.alias).where(ledger_tenants.c.tenant == tenant)
        if await connection.scalar(named) is not None:
            return False
        days = await _days(connection, tenant, zone)
        if any(day % HOUR_MS for day, _ in days) and await _forgotten(connection):
            return False
        put = upsert(connection.dialect.name)(ledger_tenants).values(tenant=tenant, zone=zone)
        await connection.execute(
            put.on_conflict_do_update(index_elements=[ledger_tenants.c.tenant], set_={"zone": zone})
        )
        for table in (usage_daily, usage_monthly):
            await connection.execute(delete(table).where(table.c.tenant == tenant))
        if days:
            await _sum_days(connection, tenant, days)
            await _sum_months(connection, tenant, days, zone)
        await connection.commit()
    _log.info("ledger_rezoned", tenant=tenant, zone=zone, days=len(days))
    return True


async def follow_zones(engine: AsyncEngine) -> None:
    """Moves the days of every tenant that has another zone than the ledger keeps them in."""
    own, kept = tenants.c, ledger_tenants.c
    query = (
        select(own.id, own.time_zone)
        .outerjoin(ledger_tenants, kept.tenant == own.id)
        .where(own.time_zone != func.coalesce(kept.zone, UTC_ZONE))
        .order_by(own.id)
    )
    async with engine.connect() as connection:
        moved = (await connection.execute(query)).all()
    for tenant, zone in moved:
        try:
            await rezone(engine, tenant, zone)
        except ZoneInfoNotFoundError:
            # Another machine knew it. Its reports say so, and the others must not wait for it.
            _log.error("ledger_zone_unknown", tenant=tenant, zone=zone)


@asynccontextmanager
async def following_zones(engine: AsyncEngine) -> AsyncIterator[None]:
    """Follows tenants' zones in the background: at once where this process changed one.

    What another changed is found within a minute.
    """
    wake = asyncio.Event()
    on_change(engine, wake.set)
    async with looking(
        lambda: follow_zones(engine), every=_LOOK_SECONDS, name="ledger-zones", wake=wake
    ):
        yield


async def _forgotten(connection: AsyncConnection) -> bool:
    """Whether events were deleted that days beginning within an hour are counted from."""
    query = select(ledger_marks.c.value).where(ledger_marks.c.name == RETAINED)
    return bool(await connection.scalar(query))


async def _days(connection: AsyncConnection, tenant: str, zone: str) -> list[Bounds]:
    """The local days of everything that the tenant's hours hold."""
    hours = usage_hourly.c
    query = select(func.min(hours.hour), func.max(hours.hour)).where(hours.tenant == tenant)
    first, last = (await connection.execute(query)).one()
    if first is None:
        return []
    found = [day_around(first * HOUR_MS, zone)]
    while found[-1][1] < (last + 1) * HOUR_MS:
        found.append(day_around(found[-1][1], zone))
    return found


async def _sum_days(connection: AsyncConnection, tenant: str, days: Sequence[Bounds]) -> None:
    pieces = [piece for start, end in days for piece in cover_from_hours(start, end)]
    await _fill(connection, tenant, usage_daily, DAILY_DIMENSIONS, pieces)


async def _sum_months(
    connection: AsyncConnection, tenant: str, days: Sequence[Bounds], zone: str
) -> None:
    months = sorted({month_around(start, zone) for start, _ in days})
    pieces = [Piece(Level.DAY, start, end, 1, start) for start, end in months]
    await _fill(connection, tenant, usage_monthly, MONTHLY_DIMENSIONS, pieces)


async def _fill(
    connection: AsyncConnection,
    tenant: str,
    table: Table,
    dimensions: Sequence[str],
    pieces: Sequence[Piece],
) -> None:
    found = sums_query(tenant, pieces, columns=(BUCKET, *dimensions[2:]), sums=SUMS).subquery()
    rows = select(literal(tenant), *(found.c[name] for name in (BUCKET, *dimensions[2:], *SUMS)))
    await connection.execute(insert(table).from_select([*dimensions, *SUMS], rows))
