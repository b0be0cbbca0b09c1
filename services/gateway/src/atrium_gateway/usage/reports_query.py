"""The SQL of reports: full days and hours from roll-ups, what is left of the period from events.

The parts are disjoint, so their sum is exact for any period. `reports.py` runs it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
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
from atrium_gateway.usage.reports_calendar import (
    DAY_MS,
    HOUR_MS,
    Cover,
    Span,
    cover,
    cover_days,
    unix_ms,
)
from atrium_gateway.usage.reports_views import DIMENSIONS, Bucket, Filters, Group
from atrium_gateway.usage.tables import COUNTS, usage_daily, usage_events, usage_hourly

BUCKET = "bucket"
"""Column of a row that says where its bucket begins, Unix ms."""
_LENGTHS = {Bucket.MINUTE: 60_000, Bucket.HOUR: HOUR_MS, Bucket.DAY: DAY_MS}
_PLAIN_SPANS = 64
"""So many spans, two months of days with their edges, are queries of their own."""
_SUMMED = (*COUNTS, "refunded")


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
    def by_local_day(self) -> bool:
        """Whether its days are no days of UTC, so that they are counted out one by one."""
        return self.bucket is Bucket.DAY and str(self.zone) != str(UTC)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that name a group, in the order of the rows."""
        named = tuple(name for group, name in DIMENSIONS.items() if group in self.by)
        return named if self.bucket is None else (BUCKET, *named)


def report_query(
    report: Report, *, limit: int | None = None, after: Sequence[int | str] = ()
) -> Select[tuple[object, ...]]:
    """The rows of a report: its columns, then the sums, in the order of the columns.

    Args:
        report: What to sum.
        limit: Most rows.
        after: Place of the row to go on after, as long as the columns.

    Raises:
        InvalidArgument: The period is empty, or too long for its buckets.
    """
    covered = _covered(report)
    parts = [
        *_part(report, usage_daily, usage_daily.c.day, covered.days, unit=DAY_MS),
        *_part(report, usage_hourly, usage_hourly.c.hour, covered.hours, unit=HOUR_MS),
        *_part(report, usage_events, usage_events.c.started_ms, covered.edges, unit=1),
    ]
    rows = union_all(*parts).subquery("parts")
    columns = [rows.c[name] for name in report.columns]
    sums = [func.sum(rows.c[name]).label(name) for name in _SUMMED]
    query = select(*columns, *sums).group_by(*columns).order_by(*columns).limit(limit)
    if after:
        query = query.where(tuple_(*columns) > tuple_(*after))
    return query


def _covered(report: Report) -> Cover:
    start, end = unix_ms(report.start), unix_ms(report.end)
    if end <= start:
        raise InvalidArgument("end_time must be after start_time.", field="end_time")
    if report.bucket is Bucket.MINUTE:
        if end - start > DAY_MS:
            raise InvalidArgument("A report by minutes spans at most a day.", field="end_time")
        return Cover([], [], [Span(0, start, end)])
    if report.by_local_day:
        return cover_days(start, end, report.zone)
    return cover(start, end, days=report.bucket is not Bucket.HOUR)


def _part(
    report: Report, table: Table, time: ColumnElement[int], spans: Sequence[Span], *, unit: int
) -> list[SelectBase]:
    """The rows of `table` in `spans`, unsummed; nothing if there are no spans.

    Args:
        report: What is summed.
        table: Events or roll-ups.
        time: Its column of time.
        spans: In its units.
        unit: Milliseconds of one unit.
    """
    if not spans:
        return []
    wanted = [table.c.tenant == report.tenant, *_filters(table, report.only)]
    bucket = _bucket(report, time, unit=unit)
    if len(spans) <= _PLAIN_SPANS:
        # Plain bounds: the database's planner knows how much lies between them.
        return [
            select(*_columns(report, table, _day(span) if report.by_local_day else bucket)).where(
                *wanted, time >= span.start, time < span.end
            )
            for span in spans
        ]
    listed = _listed(spans, table)
    wanted += [time >= listed.c.first, time < listed.c.beyond]
    shown = _columns(report, table, listed.c.day if report.by_local_day else bucket)
    return [select(*shown).select_from(listed, table).where(*wanted)]


def _listed(spans: Sequence[Span], table: Table) -> CTE:
    """The spans as a table of their own: each becomes one search in the index."""
    numbers = (column(name, BigInteger) for name in ("day", "first", "beyond"))
    return values(*numbers, name="spans").data(list(spans)).cte(f"spans_of_{table.name}")


def _day(span: Span) -> ColumnElement[int]:
    return literal_column(str(span.bucket), BigInteger)


def _bucket(report: Report, time: ColumnElement[int], *, unit: int) -> ColumnElement[int]:
    """Start of the bucket around `time`, by arithmetic over UTC."""
    if report.bucket is None:
        return literal_column("0", BigInteger)
    ms = time * literal_column(str(unit), BigInteger) if unit != 1 else time
    return ms - ms % literal_column(str(_LENGTHS[report.bucket]), BigInteger)


def _columns(
    report: Report, table: Table, bucket: ColumnElement[int]
) -> Sequence[ColumnElement[int] | ColumnElement[object]]:
    refunded = (
        case((table.c.outcome == REFUNDED, 1), else_=0)
        if table is usage_events
        else table.c.refunded
    )
    named = [_dimension(table, name) for name in report.columns if name != BUCKET]
    counts = [table.c[name] for name in COUNTS]
    return [bucket.label(BUCKET), *named, *counts, refunded.label("refunded")]


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
