"""What a tenant consumed: totals, groups and events, for `/api/usage` and `atrium usage`.

Every query names one tenant; there is no way to ask for several, and PostgreSQL hides the
others' rows from it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

from sqlalchemy import ColumnElement, Executable, Row, and_, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_common.errors import InvalidArgument, Unavailable
from atrium_gateway.database_scope import TenantScope
from atrium_gateway.usage.kept import kept_zone
from atrium_gateway.usage.price_store import PriceRepository
from atrium_gateway.usage.reports_calendar import unix_ms
from atrium_gateway.usage.reports_prices import UnitPrices
from atrium_gateway.usage.reports_query import (
    BUCKET,
    Report,
    event_filters,
    report_query,
)
from atrium_gateway.usage.reports_rows import event_of, group_of
from atrium_gateway.usage.reports_views import (
    DIMENSIONS,
    EVERYTHING,
    Bucket,
    EventView,
    Filters,
    Group,
    Totals,
    UsageGroup,
)
from atrium_gateway.usage.tables import usage_events

__all__ = ["Bucket", "EventView", "Filters", "Group", "Totals", "UsageGroup", "UsageReports"]

MAX_EVENTS = 1000
"""Most events of a page."""
_INT64 = 1 << 63
_PAGE = 5_000
"""Groups that a large export reads at a time."""


class UsageReports:
    """Reads the ledger's tables.

    Args:
        engine: The database, upgraded.
        flush: Brings the spool into the database first, so that a caller reads its own
            writes.
    """

    def __init__(self, engine: AsyncEngine, *, flush: Callable[[], Awaitable[None]]) -> None:
        self._engine = engine
        self._flush = flush

    async def totals(
        self, tenant: str, *, start: datetime, end: datetime, only: Filters = EVERYTHING
    ) -> Totals:
        """Sums over everything admitted in ``[start, end)``, exact to the millisecond.

        Raises:
            InvalidArgument: `end` is not after `start`.
            Unavailable: Disk or database refuse.
        """
        groups = await self.groups(tenant, start=start, end=end, by=(), only=only)
        return groups[0].totals if groups else Totals()

    async def groups(
        self,
        tenant: str,
        *,
        start: datetime,
        end: datetime,
        by: Sequence[Group],
        bucket: Bucket | None = None,
        zone: tzinfo = UTC,
        only: Filters = EVERYTHING,
        limit: int | None = None,
        after: Sequence[int | str] = (),
    ) -> Sequence[UsageGroup]:
        """The same split by `by` and `bucket`, in their order; empty groups are left out.

        The time of a request is when it was admitted. A bucket at the edge of the period
        counts only what lies in it.

        Args:
            tenant: Whose.
            start: Aware time.
            end: Aware time, not included.
            by: Dimensions; `Group.HOUR` and `Group.DAY` are buckets.
            bucket: Minutes, hours of UTC or days of `zone`.
            zone: The tenant's time zone.
            only: Which events count.
            limit: Most groups.
            after: Place of the group to go on after.

        Raises:
            InvalidArgument: `end` is not after `start`, the period is too long for its
                buckets, or `after` is the place of another report's group.
            Unavailable: Disk or database refuse.
        """
        report = _report(tenant, start, end, by=by, bucket=bucket, zone=zone, only=only)
        if after and not _fits(after, report):
            raise InvalidArgument("page belongs to another report.", field="page")
        await self._flush()
        rows = await self._summed(report, limit=limit, after=after)
        return [group_of(row, report) for row in rows]

    async def all_groups(
        self,
        tenant: str,
        *,
        start: datetime,
        end: datetime,
        by: Sequence[Group],
        bucket: Bucket | None = None,
        zone: tzinfo = UTC,
        only: Filters = EVERYTHING,
        after: Sequence[int | str] = (),
    ) -> AsyncIterator[Sequence[UsageGroup]]:
        """Every group of such a report, some thousands at a time, for exports.

        Raises:
            InvalidArgument: As for `groups`.
            Unavailable: Disk or database refuse.
        """
        while True:
            page = await self.groups(
                tenant,
                start=start,
                end=end,
                by=by,
                bucket=bucket,
                zone=zone,
                only=only,
                limit=_PAGE,
                after=after,
            )
            yield page
            if len(page) < _PAGE:
                return
            after = page[-1].place

    async def events(
        self,
        tenant: str,
        *,
        start: datetime,
        end: datetime,
        limit: int = 100,
        after: str | None = None,
        only: Filters = EVERYTHING,
    ) -> Sequence[EventView]:
        """Events admitted in ``[start, end)``, newest first.

        Args:
            tenant: Whose.
            start: Aware time.
            end: Aware time, not included.
            limit: At most 1000.
            after: Id of the last event of the page before.
            only: Which events are shown.

        Raises:
            InvalidArgument: `end` is not after `start`, or `limit` is out of range.
            Unavailable: Disk or database refuse.
        """
        if not 1 <= limit <= MAX_EVENTS:
            raise InvalidArgument(f"limit must be 1 to {MAX_EVENTS}.", field="limit")
        if end <= start:
            raise InvalidArgument("end_time must be after start_time.", field="end_time")
        await self._flush()
        table = usage_events.c
        wanted = [
            table.tenant == tenant,
            table.started_ms >= unix_ms(start),
            table.started_ms < unix_ms(end),
            *event_filters(only),
        ]
        if after is not None:
            wanted.append(await self._before(tenant, after))
        query = (
            select(usage_events)
            .where(and_(*wanted))
            .order_by(table.started_ms.desc(), table.id.desc())
            .limit(limit)
        )
        return [event_of(row) for row in await self._rows(tenant, query)]

    async def prices(self) -> UnitPrices:
        """Every price that ever held.

        Raises:
            Unavailable: The database refuses.
        """
        try:
            return UnitPrices(await PriceRepository(self._engine).versions())
        except (SQLAlchemyError, OSError) as err:
            raise _away() from err

    async def _before(self, tenant: str, event_id: str) -> ColumnElement[bool]:
        table = usage_events.c
        mark = select(table.started_ms).where(table.tenant == tenant, table.id == event_id)
        rows = await self._rows(tenant, mark)
        if not rows:
            raise InvalidArgument("after names no event.", field="after")
        started = rows[0].started_ms
        return and_(
            # Said twice, so that the index is entered at the right place.
            table.started_ms <= started,
            or_(table.started_ms < started, table.id < event_id),
        )

    async def _summed(
        self, report: Report, *, limit: int | None, after: Sequence[int | str]
    ) -> Sequence[Row[tuple[object, ...]]]:
        try:
            async with TenantScope(self._engine, report.tenant).connect() as connection:
                kept = ""
                # Days that moved to another zone meanwhile are asked for again.
                while kept != (zone := await kept_zone(connection, report.tenant)):
                    kept = zone
                    query = report_query(report, kept, limit=limit, after=after)
                    rows = (await connection.execute(query)).all()
        except (SQLAlchemyError, OSError) as err:
            raise _away() from err
        return rows

    async def _rows(self, tenant: str, query: Executable) -> Sequence[Row[tuple[object, ...]]]:
        try:
            async with TenantScope(self._engine, tenant).connect() as connection:
                return (await connection.execute(query)).all()
        except (SQLAlchemyError, OSError) as err:
            raise _away() from err


def _away() -> Unavailable:
    return Unavailable("The database can't be reached now.", retry_after=timedelta(seconds=2))


def _report(
    tenant: str,
    start: datetime,
    end: datetime,
    *,
    by: Sequence[Group],
    bucket: Bucket | None,
    zone: tzinfo,
    only: Filters,
) -> Report:
    if bucket is None:
        bucket = Bucket.HOUR if Group.HOUR in by else Bucket.DAY if Group.DAY in by else None
    return Report(
        tenant=tenant,
        start=start,
        end=end,
        by=tuple(group for group in DIMENSIONS if group in by),
        bucket=bucket,
        zone=zone,
        only=only,
    )


def _fits(place: Sequence[int | str], report: Report) -> bool:
    """Whether `place` can be one of the report's, and is nothing that a database refuses."""
    kinds = [int if name == BUCKET else str for name in report.columns]
    storable = ("\0" not in part if isinstance(part, str) else abs(part) < _INT64 for part in place)
    return [type(part) for part in place] == kinds and all(storable)
