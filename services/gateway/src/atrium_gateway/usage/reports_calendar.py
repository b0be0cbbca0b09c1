"""Buckets of time: which spans a report is split into, and what of them roll-ups can tell.

Plain arithmetic over Unix milliseconds; `reports_query.py` makes SQL of it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple
from zoneinfo import ZoneInfo

from atrium_common.errors import InvalidArgument

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = datetime(9000, 1, 1, tzinfo=UTC)
"""No report goes further: beyond it, calendars end."""
MAX_DAYS = 3_700
"""Most days that a report is split into: ten years."""
_MILLISECOND = timedelta(milliseconds=1)
_DAY = timedelta(days=1)
_DAY_HOURS = 24


def zone_of(name: str) -> tzinfo:
    """The time zone of an IANA name; UTC needs no table of zones on the machine.

    Raises:
        ZoneInfoNotFoundError: There is no such zone.
    """
    return UTC if name == str(UTC) else ZoneInfo(name)


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
    """What a period is read from: `days` and `hours` from roll-ups, `edges` from events."""

    days: list[Span]
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


def cover(start: int, end: int, *, bucket: int = 0, days: bool = True) -> Cover:
    """Covers ``[start, end)`` ms: full days and hours from roll-ups, the edges from events.

    Args:
        start: Unix ms.
        end: Unix ms.
        bucket: The bucket of all of it.
        days: Whether days may be taken whole; not where hours are told apart.
    """
    first, last = -(-start // HOUR_MS), end // HOUR_MS
    if first >= last:
        return Cover([], [], _spans(bucket, (start, end)))
    edges = _spans(bucket, (start, first * HOUR_MS), (last * HOUR_MS, end))
    first_day, last_day = -(-first // _DAY_HOURS), last // _DAY_HOURS
    if not days or first_day >= last_day:
        return Cover([], _spans(bucket, (first, last)), edges)
    hours = _spans(bucket, (first, first_day * _DAY_HOURS), (last_day * _DAY_HOURS, last))
    return Cover(_spans(bucket, (first_day, last_day)), hours, edges)


def _spans(bucket: int, *bounds: tuple[int, int]) -> list[Span]:
    """Those that are not empty."""
    return [Span(bucket, start, end) for start, end in bounds if start < end]


def cover_days(start: int, end: int, zone: tzinfo) -> Cover:
    """The same, each span within one day of `zone`.

    Raises:
        InvalidArgument: More than `MAX_DAYS` days.
    """
    if end - start > MAX_DAYS * _DAY // _MILLISECOND:
        raise InvalidArgument(
            f"A report by days spans at most {MAX_DAYS} of them.", field="end_time"
        )
    found = Cover([], [], [])
    for day, following in _days(start, end, zone):
        part = cover(max(start, day), min(end, following), bucket=day)
        found.days.extend(part.days)
        found.hours.extend(part.hours)
        found.edges.extend(part.edges)
    return found


def _days(start: int, end: int, zone: tzinfo) -> Iterator[tuple[int, int]]:
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


def month_bounds(year: int, month: int, zone: tzinfo) -> tuple[datetime, datetime]:
    """Start of a calendar month of `zone` and of the next one, aware UTC."""
    following_year, following = divmod(year * 12 + month, 12)
    first = datetime(year, month, 1, tzinfo=zone)
    after = datetime(following_year, following + 1, 1, tzinfo=zone)
    return first.astimezone(UTC), after.astimezone(UTC)
