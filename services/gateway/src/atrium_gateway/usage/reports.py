"""What a tenant consumed: totals, groups and events, for `/api/usage` and `atrium usage`.

Every query names one tenant; there is no way to ask for several.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

import msgspec
from sqlalchemy import ColumnElement, Executable, Row, and_, func, literal_column, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_common.errors import InvalidArgument, Unavailable
from atrium_gateway.usage.price import NANO
from atrium_gateway.usage.records import REFUNDED
from atrium_gateway.usage.tables import COUNTS, usage_events, usage_hourly

_MS_PER_HOUR = 3_600_000
_MAX_EVENTS = 1000


class Group(StrEnum):
    """By what totals are split."""

    HOUR = "hour"
    DAY = "day"
    CAPABILITY = "capability"
    MODEL = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over some requests; counts are 0 or more, cost is in the price book's currency."""

    requests: int = 0
    refunded: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    characters: int = 0
    input_audio: timedelta = timedelta()
    output_audio: timedelta = timedelta()
    images: int = 0
    millimegapixel_steps: int = 0
    pages: int = 0
    inference_time: timedelta = timedelta()
    cost: Decimal = Decimal()


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageGroup:
    """One group of a report.

    Attributes:
        start: Start of the hour or day, if grouped by it.
        capability: Capability, if grouped by it.
        model: Model, if grouped by it.
        totals: Sums over the group.
    """

    start: datetime | None = None
    capability: str | None = None
    model: str | None = None
    totals: Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """One line of the bill.

    Attributes:
        id: UUIDv7 of the reservation, or one made of it where several models worked.
        request_id: The same in all events of a request.
        outcome: ``completed``, ``cancelled``, ``failed``, ``refunded``, ``expired`` or
            ``orphaned``.
        estimated: The counts are an upper estimate.
        reserved: Counts that were held, zero ones left out.
        totals: What was charged.
    """

    id: str
    subject: str
    key_id: str | None
    capability: str
    model: str
    engine: str
    method: str
    request_id: str
    started_at: datetime
    ended_at: datetime
    outcome: str
    reason: str
    estimated: bool
    reserved: dict[str, int]
    price_version: int
    totals: Totals


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

    async def totals(self, tenant: str, *, start: datetime, end: datetime) -> Totals:
        """Sums over everything admitted in ``[start, end)``, in whole UTC hours.

        Raises:
            InvalidArgument: `end` is not after `start`.
            Unavailable: Disk or database refuse.
        """
        groups = await self.groups(tenant, start=start, end=end, by=())
        return groups[0].totals if groups else Totals()

    async def groups(
        self, tenant: str, *, start: datetime, end: datetime, by: Sequence[Group]
    ) -> Sequence[UsageGroup]:
        """The same split by `by`, ordered by its columns; empty groups are left out.

        Hours are those in which the requests were admitted. `start` is rounded down and
        `end` up to a whole hour.

        Raises:
            InvalidArgument: `end` is not after `start`.
            Unavailable: Disk or database refuse.
        """
        first, last = _hours(start, end)
        columns = [_GROUPS[group].label(group.value) for group in dict.fromkeys(by)]
        sums = [func.sum(usage_hourly.c[name]).label(name) for name in (*COUNTS, "refunded")]
        query = (
            select(*columns, *sums)
            .where(
                usage_hourly.c.tenant == tenant,
                usage_hourly.c.hour >= first,
                usage_hourly.c.hour < last,
            )
            .group_by(*columns)
            .order_by(*columns)
        )
        rows = await self._rows(query)
        return [_group(row, by) for row in rows if row.requests is not None]

    async def events(
        self,
        tenant: str,
        *,
        start: datetime,
        end: datetime,
        limit: int = 100,
        after: str | None = None,
    ) -> Sequence[EventView]:
        """Events admitted in ``[start, end)``, newest first.

        Args:
            tenant: Whose.
            start: Aware time.
            end: Aware time.
            limit: At most 1000.
            after: Id of the last event of the page before.

        Raises:
            InvalidArgument: `end` is not after `start`, or `limit` is out of range.
            Unavailable: Disk or database refuse.
        """
        if not 1 <= limit <= _MAX_EVENTS:
            raise InvalidArgument(f"limit must be 1 to {_MAX_EVENTS}.", field="limit")
        _hours(start, end)
        table = usage_events.c
        wanted = [
            table.tenant == tenant,
            table.started_ms >= int(start.timestamp() * 1000),
            table.started_ms < int(end.timestamp() * 1000),
        ]
        if after is not None:
            wanted.append(await self._before(tenant, after))
        query = (
            select(usage_events)
            .where(and_(*wanted))
            .order_by(table.started_ms.desc(), table.id.desc())
            .limit(limit)
        )
        return [_event(row) for row in await self._rows(query)]

    async def _before(self, tenant: str, event_id: str) -> ColumnElement[bool]:
        table = usage_events.c
        mark = select(table.started_ms).where(table.tenant == tenant, table.id == event_id)
        rows = await self._rows(mark)
        if not rows:
            raise InvalidArgument("after names no event.", field="after")
        started = rows[0].started_ms
        return or_(
            table.started_ms < started, and_(table.started_ms == started, table.id < event_id)
        )

    async def _rows(self, query: Executable) -> Sequence[Row[tuple[object, ...]]]:
        await self._flush()
        try:
            async with self._engine.connect() as connection:
                return (await connection.execute(query)).all()
        except (SQLAlchemyError, OSError) as err:
            raise Unavailable(
                "The database can't be reached now.", retry_after=timedelta(seconds=2)
            ) from err


_GROUPS: dict[Group, ColumnElement[object]] = {
    Group.HOUR: usage_hourly.c.hour,
    # Not a parameter: PostgreSQL would take it for another one in GROUP BY.
    Group.DAY: usage_hourly.c.hour - usage_hourly.c.hour % literal_column("24"),
    Group.CAPABILITY: usage_hourly.c.capability,
    Group.MODEL: usage_hourly.c.model,
}


def _hours(start: datetime, end: datetime) -> tuple[int, int]:
    if end <= start:
        raise InvalidArgument("end_time must be after start_time.", field="end_time")
    return int(start.timestamp()) // 3600, -(-int(end.timestamp() * 1000) // _MS_PER_HOUR)


def _group(row: Row[tuple[object, ...]], by: Sequence[Group]) -> UsageGroup:
    hour = row.hour if Group.HOUR in by else row.day if Group.DAY in by else None
    return UsageGroup(
        start=None if hour is None else datetime.fromtimestamp(hour * 3600, UTC),
        capability=row.capability if Group.CAPABILITY in by else None,
        model=row.model if Group.MODEL in by else None,
        totals=_totals(row, refunded=int(row.refunded)),
    )


def _totals(row: Row[tuple[object, ...]], *, refunded: int) -> Totals:
    # PostgreSQL's SUM(bigint) is a Decimal.
    counts = {name: int(row._mapping[name]) for name in COUNTS}
    cost, audio_in = counts.pop("cost_nano"), counts.pop("input_audio_ms")
    audio_out, inference = counts.pop("output_audio_ms"), counts.pop("inference_ms")
    return Totals(
        refunded=refunded,
        input_audio=timedelta(milliseconds=audio_in),
        output_audio=timedelta(milliseconds=audio_out),
        inference_time=timedelta(milliseconds=inference),
        cost=Decimal(cost) / NANO,
        **counts,
    )


def _event(row: Row[tuple[object, ...]]) -> EventView:
    return EventView(
        id=row.id,
        subject=row.subject,
        key_id=row.key_id,
        capability=row.capability,
        model=row.model,
        engine=row.engine,
        method=row.method,
        request_id=row.request_id,
        started_at=datetime.fromtimestamp(row.started_ms / 1000, UTC),
        ended_at=datetime.fromtimestamp(row.ended_ms / 1000, UTC),
        outcome=row.outcome,
        reason=row.reason,
        estimated=row.estimated,
        reserved=msgspec.json.decode(row.reserved, type=dict[str, int]),
        price_version=row.price_version,
        totals=_totals(row, refunded=int(row.outcome == REFUNDED)),
    )
