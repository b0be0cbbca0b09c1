"""Local days and months of an instant, by the time zone in which a tenant's are kept.

The writer, reports and the change of a zone all ask here, so that they agree on every edge.
"""

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from atrium_gateway.usage.reports_calendar import moment_of, unix_ms, zone_of

_MINUTE_MS = 60_000
_DAY = timedelta(days=1)

Bounds = tuple[int, int]
"""Start of a day or month, and of the next one, Unix ms."""


def day_around(ms: int, zone: str) -> Bounds:
    """The local day of a Unix millisecond.

    Where a clock skips midnight the day begins with the skip; where midnight comes twice,
    with the first one.
    """
    return _around(ms // _MINUTE_MS, zone)[0]


def month_around(ms: int, zone: str) -> Bounds:
    """The local calendar month of a Unix millisecond."""
    return _around(ms // _MINUTE_MS, zone)[1]


@lru_cache(maxsize=8192)
def _around(minute: int, zone: str) -> tuple[Bounds, Bounds]:
    # Every zone's days begin at whole minutes of UTC: one answer serves a minute.
    ms = minute * _MINUTE_MS
    local = moment_of(ms).astimezone(zone_of(zone)).date()
    if ms >= _midnight(local + _DAY, zone):
        # A clock that was put back over midnight shows yesterday's date once more.
        local += _DAY
    following = (local.replace(day=1) + 31 * _DAY).replace(day=1)
    return (
        (_midnight(local, zone), _midnight(local + _DAY, zone)),
        (_midnight(local.replace(day=1), zone), _midnight(following, zone)),
    )


@lru_cache(maxsize=8192)
def _midnight(local: date, zone: str) -> int:
    midnight = datetime(local.year, local.month, local.day, tzinfo=zone_of(zone))
    return unix_ms(midnight.astimezone(UTC))
