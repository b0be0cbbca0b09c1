"""Moments as Unix milliseconds, zones by name, and months of a zone; reports count in these."""

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = datetime(9000, 1, 1, tzinfo=UTC)
"""No report goes further: beyond it, calendars end."""
MAX_DAYS = 3_700
"""Most days that a report is split into: ten years."""
_MILLISECOND = timedelta(milliseconds=1)


def zone_of(name: str) -> tzinfo:
    """The time zone of an IANA name; UTC needs no table of zones on the machine.

    Raises:
        ZoneInfoNotFoundError: There is no such zone.
    """
    return UTC if name == str(UTC) else ZoneInfo(name)


def unix_ms(moment: datetime) -> int:
    """First whole Unix millisecond that is not before `moment`, an aware time.

    Events have whole milliseconds: so ``[start, end)`` holds the same ones.
    """
    return -((EPOCH - min(max(moment, EPOCH), LAST)) // _MILLISECOND)


def moment_of(ms: int) -> datetime:
    """The aware UTC time of a Unix millisecond."""
    return EPOCH + ms * _MILLISECOND


def month_bounds(year: int, month: int, zone: tzinfo) -> tuple[datetime, datetime]:
    """Start of a calendar month of `zone` and of the next one, aware UTC."""
    following_year, following = divmod(year * 12 + month, 12)
    first = datetime(year, month, 1, tzinfo=zone)
    after = datetime(following_year, following + 1, 1, tzinfo=zone)
    return first.astimezone(UTC), after.astimezone(UTC)
