"""Buckets of time: which spans a report is split into, and what of them roll-ups can tell.

Plain arithmetic over Unix milliseconds; `reports_query.py` makes SQL of it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from atrium_common.errors import InvalidArgument

HOUR_MS = 3_600_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = datetime(9000, 1, 1, tzinfo=UTC)
"""No report goes further: beyond it, calendars end."""
MAX_DAYS = 3_700
"""Most days that a report is split into: ten years."""
_MILLISECOND = timedelta(milliseconds=1)
_DAY = timedelta(days=1)


class Span(NamedTuple):
    """A part of a report's period, in one bucket.

    Attributes:
        bucket: Start of the bucket, Unix ms; 0 where the SQL computes it or there is none.
        start: First unit: ms for events, hours for roll-ups.
        end: One past the last.
    """

    bucket: int
    start: int
    end: int


class Cover(NamedTuple):
    """What a period is read from: `hours` from roll-ups, `edges` from events."""

    hours: list[Span]
    edges: list[Span]


def unix_ms(moment: datetime) -> int:
    """First whole Unix millisecond that is not before `moment`, an aware time.

    Events have whole milliseconds: so ``[start, end)`` holds the same ones.
    """
    return -((EPOCH - min(max(moment, EPOCH), LAST)) // _MILLISECOND)


def moment_of(ms: int) -> datetime:
    """The aware UTC time of a Unix millisecond."""
    return EPOCH + ms * _MILLISECOND


def cover(start: int, end: int, *, bucket: int = 0) -> Cover:
    """Covers ``[start, end)`` ms: full hours from roll-ups, the edges from events."""
    first, last = -(-start // HOUR_MS), end // HOUR_MS
    if first >= last:
        return Cover([], [Span(bucket, start, end)] if start < end else [])
    edges = [Span(bucket, start, first * HOUR_MS), Span(bucket, last * HOUR_MS, end)]
    return Cover([Span(bucket, first, last)], [edge for edge in edges if edge.start < edge.end])


def cover_days(start: int, end: int, zone: ZoneInfo) -> Cover:
    """The same, each span within one day of `zone`.

    Raises:
        InvalidArgument: More than `MAX_DAYS` days.
    """
    if end - start > MAX_DAYS * _DAY // _MILLISECOND:
        raise InvalidArgument(
            f"A report by days spans at most {MAX_DAYS} of them.", field="end_time"
        )
    found = Cover([], [])
    for day, following in _days(start, end, zone):
        part = cover(max(start, day), min(end, following), bucket=day)
        found.hours.extend(part.hours)
        found.edges.extend(part.edges)
    return found


def _days(start: int, end: int, zone: ZoneInfo) -> Iterator[tuple[int, int]]:
    """The days of `zone` that ``[start, end)`` touches: start and end of each."""
    date = moment_of(start).astimezone(zone).date()
    day = _midnight(datetime(date.year, date.month, date.day, tzinfo=zone))
    while day < end:
        date += _DAY
        following = _midnight(datetime(date.year, date.month, date.day, tzinfo=zone))
        yield day, following
        day = following


def _midnight(local: datetime) -> int:
    """When a local day begins; where a clock skips midnight, at the moment of the skip."""
    return unix_ms(local.astimezone(UTC))


def month_bounds(year: int, month: int, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Start of a calendar month of `zone` and of the next one, aware UTC."""
    following_year, following = divmod(year * 12 + month, 12)
    first = datetime(year, month, 1, tzinfo=zone)
    after = datetime(following_year, following + 1, 1, tzinfo=zone)
    return first.astimezone(UTC), after.astimezone(UTC)
