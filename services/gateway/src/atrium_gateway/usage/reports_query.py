"""The SQL of reports: signed pieces of roll-ups and events, and their sums.

The pieces make up any period exactly (`reports_cover.py`). `reports.py` runs it, and
`rezone.py` makes roll-ups of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Integer,
    Select,
    SelectBase,
    Table,
    case,
    column,
    func,
    literal_column,
    select,
    tuple_,
    union_all,
    values,
)

from atrium_common.errors import InvalidArgument
from atrium_gateway.usage.records import REFUNDED
from atrium_gateway.usage.reports_calendar import DAY_MS, HOUR_MS, unix_ms
from atrium_gateway.usage.reports_cover import (
    Level,
    Piece,
    check_days,
    cover,
    cover_buckets,
    cover_whole,
    hour_around,
)
from atrium_gateway.usage.reports_views import DIMENSIONS, EVERYTHING, Bucket, Filters, Group
from atrium_gateway.usage.tables import (
    COUNTS,
    usage_daily,
    usage_events,
    usage_hourly,
    usage_monthly,
    usage_nameless,
)
from atrium_gateway.usage.zones import day_around

BUCKET: Final = "bucket"
"""Column of a row that says where its bucket begins, Unix ms."""
SHOWN: Final = (*COUNTS, "refunded")
"""What a report sums."""
_MINUTE_MS: Final = 60_000
_PLAIN: Final = 64
"""So many pieces of one level are queries of their own."""
_TABLES: Final[dict[Level, tuple[Table, ColumnElement[int], int]]] = {
    Level.MONTH: (usage_monthly, usage_monthly.c.month, 1),
    Level.DAY: (usage_daily, usage_daily.c.day, 1),
    Level.HOUR: (usage_hourly, usage_hourly.c.hour, HOUR_MS),
    Level.EVENT: (usage_events, usage_events.c.started_ms, 1),
}
"""Where pieces are, their column of time, and milliseconds of one of its units."""
_NAMELESS_HOURS: Final = (usage_nameless, usage_nameless.c.hour, HOUR_MS)
"""The same of hours whose keys and users nobody asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is summed, and how it is split.

    Attributes:
        tenant: Whose; there is no way to ask for several.
        start: Aware time.
        end: Aware time, not included.
        by: Dimensions, each once.
        bucket: Length of the spans of time, if split by time.
        zone: Whose days they are.
        only: Which events count.
    """

    tenant: str
    start: datetime
    end: datetime
    by: tuple[Group, ...] = ()
    bucket: Bucket | None = None
    zone: tzinfo = UTC
    only: Filters

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that name a group, in the order of the rows."""
        named = tuple(name for group, name in DIMENSIONS.items() if group in self.by)
        return named if self.bucket is None else (BUCKET, *named)


def report_query(
    report: Report, kept: str, *, limit: int | None = None, after: Sequence[int | str] = ()
) -> Select[tuple[object, ...]]:
    """The rows of a report: its columns, then the sums, in the order of the columns.

    Args:
        report: What to sum.
        kept: Zone of the days that the ledger keeps of the tenant.
        limit: Most rows.
        after: Place of the row to go on after, as long as the columns.

    Raises:
        InvalidArgument: The period is empty, or too long for its buckets.
    """
    query = sums_query(
        report.tenant, _pieces(report, kept), columns=report.columns, only=report.only
    )
    named = [query.selected_columns[name] for name in report.columns]
    query = query.order_by(*named).limit(limit)
    return query.where(tuple_(*named) > tuple_(*after)) if after else query


def sums_query(
    tenant: str,
    pieces: Iterable[Piece],
    *,
    columns: Sequence[str],
    sums: Sequence[str] = SHOWN,
    only: Filters = EVERYTHING,
) -> Select[tuple[object, ...]]:
    """`columns` and the sums of `pieces`, one row for each group that has events.

    Args:
        tenant: Whose.
        pieces: What is summed; at least one.
        columns: What groups are named by.
        sums: What is summed of each.
        only: Which events count.
    """
    by_level: dict[Level, list[Piece]] = {}
    for piece in pieces:
        by_level.setdefault(piece.level, []).append(piece)
    parts = [
        part
        for level, found in sorted(by_level.items())
        for part in _parts(tenant, level, found, columns=columns, sums=sums, only=only)
    ]
    rows = union_all(*parts).subquery("parts")
    named = [rows.c[name] for name in columns]
    summed = [func.sum(rows.c[name]).label(name) for name in sums]
    # What was added and taken off again is no group.
    return select(*named, *summed).group_by(*named).having(func.sum(rows.c.counted) > 0)


def _pieces(report: Report, kept: str) -> Sequence[Piece]:
    start, end = unix_ms(report.start), unix_ms(report.end)
    if end <= start:
        raise InvalidArgument("end_time must be after start_time.", field="end_time")
    if report.bucket is Bucket.MINUTE:
        if end - start > DAY_MS:
            raise InvalidArgument("A report by minutes spans at most a day.", field="end_time")
        return [Piece(Level.EVENT, start, end, 1, None)]
    if report.bucket is Bucket.HOUR:
        return cover_whole(start, end, hour_around, kept, Level.HOUR)
    if report.bucket is None:
        return cover(start, end, kept)
    zone = str(report.zone)
    check_days(start, end)
    if zone == kept:
        return cover_whole(start, end, lambda ms: day_around(ms, zone), kept, Level.DAY)
    return cover_buckets(start, end, lambda ms: day_around(ms, zone), kept)


def _parts(
    tenant: str,
    level: Level,
    pieces: Sequence[Piece],
    *,
    columns: Sequence[str],
    sums: Sequence[str],
    only: Filters,
) -> list[SelectBase]:
    """The rows of pieces of one level, unsummed, with their signs."""
    source = _source(level, columns, only)
    table, time, unit = source
    wanted = [table.c.tenant == tenant, *_filters(table, only)]
    if len(pieces) <= _PLAIN:
        # Plain bounds: the database's planner knows how much lies between them.
        return [
            select(
                *_columns(table, columns, sums, bucket=_bucket(source, piece), sign=piece.sign)
            ).where(*wanted, time >= piece.start // unit, time < piece.end // unit)
            for piece in pieces
        ]
    listed = _listed(pieces, unit, f"pieces_of_{table.name}")
    wanted += [time >= listed.c.first, time < listed.c.beyond]
    shown = _columns(table, columns, sums, bucket=listed.c.bucket, sign=listed.c.sign)
    return [select(*shown).select_from(listed, table).where(*wanted)]


def _source(
    level: Level, columns: Sequence[str], only: Filters
) -> tuple[Table, ColumnElement[int], int]:
    """Where pieces of a level are read: the smallest table that tells what is asked."""
    if level is not Level.HOUR or only.key or only.user:
        return _TABLES[level]
    named = all(name == BUCKET or name in usage_nameless.c for name in columns)
    return _NAMELESS_HOURS if named else _TABLES[level]


def _listed(pieces: Sequence[Piece], unit: int, name: str) -> FromClause:
    """The pieces as a table of their own: each becomes one search in the index."""
    numbers = (column(each, BigInteger) for each in ("bucket", "first", "beyond"))
    rows = [(p.bucket or 0, p.start // unit, p.end // unit, p.sign) for p in pieces]
    listed = values(*numbers, column("sign", Integer), name="listed", literal_binds=True)
    return listed.data(rows).cte(name)


def _bucket(source: tuple[Table, ColumnElement[int], int], piece: Piece) -> ColumnElement[int]:
    if piece.bucket is not None:
        return literal_column(str(piece.bucket), BigInteger)
    table, time, unit = source
    if table is usage_events:
        return time - time % literal_column(str(_MINUTE_MS), BigInteger)
    return time * literal_column(str(unit), BigInteger) if unit != 1 else time


def _columns(
    table: Table,
    columns: Sequence[str],
    sums: Sequence[str],
    *,
    bucket: ColumnElement[int],
    sign: ColumnElement[int] | int,
) -> Sequence[ColumnElement[int] | ColumnElement[object]]:
    named = [
        bucket.label(BUCKET) if name == BUCKET else _dimension(table, name) for name in columns
    ]
    counts = [_signed(_count(table, name), sign).label(name) for name in sums]
    return [*named, *counts, _signed(_count(table, "events"), sign).label("counted")]


def _count(table: Table, name: str) -> ColumnElement[int]:
    if table is not usage_events or name in table.c:
        return table.c[name]
    if name == "events":
        return literal_column("1", BigInteger)
    return case((table.c.outcome == REFUNDED, 1), else_=0)


def _signed(count: ColumnElement[int], sign: ColumnElement[int] | int) -> ColumnElement[int]:
    if isinstance(sign, int):
        return count if sign == 1 else -count
    return count * sign


def _dimension(table: Table, name: str) -> ColumnElement[object]:
    found = table.c[name]
    return func.coalesce(found, "").label(name) if found.nullable else found


def _filters(table: Table, only: Filters) -> list[ColumnElement[bool]]:
    asked = {
        Group.CAPABILITY: only.capability,
        Group.MODEL: only.model,
        Group.KEY: only.key,
        Group.USER: only.user,
        Group.STATUS: only.status,
    }
    return [
        _dimension(table, DIMENSIONS[group]).in_(accepted)
        for group, accepted in asked.items()
        if accepted
    ]


def event_filters(only: Filters) -> list[ColumnElement[bool]]:
    """Conditions over `usage_events` that let pass what `only` does."""
    return _filters(usage_events, only)
