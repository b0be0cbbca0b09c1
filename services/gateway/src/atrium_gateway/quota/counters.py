"""The counters behind the in-process store: one class per kind of window.

A counter keeps what was taken and where, so that a later adjustment reaches the same
part of the window or, if that has passed, nothing. Times are Unix milliseconds.
"""

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from atrium_gateway.quota.limits import NEVER, UTC_ZONE, Window
from atrium_gateway.quota.verdict import Reading

_SECOND: Final = 1000
_HOUR: Final = 3600 * _SECOND
_DAY: Final = 24 * _HOUR
_OVER_A_MONTH: Final = timedelta(days=31)
_FOREVER: Final = int(NEVER.timestamp()) * _SECOND
DROPS: Final = 60_000
"""Parts of a unit in a minute's bucket: with as many milliseconds, a limit of n drains n of
them in each, so that no division is needed and every store counts alike."""
MOST_HOLES: Final = 256
"""Returns that a bucket remembers; what it forgets counts as drained, so that others may get
less back, never more."""


def window_bounds(window: Window, now: int, time_zone: str = UTC_ZONE) -> tuple[int, int]:
    """First and one-past-last millisecond of the calendar window around `now`.

    Args:
        window: An hour of UTC, a day or a month of `time_zone`; anything else is all time.
            Days have 23 or 25 hours where the clocks change.
        now: Unix milliseconds.
        time_zone: IANA name.

    Raises:
        ZoneInfoNotFoundError: There is no such zone.
    """
    if window is Window.HOUR:
        return now - now % _HOUR, now - now % _HOUR + _HOUR
    if window is Window.DAY and time_zone == UTC_ZONE:
        return now - now % _DAY, now - now % _DAY + _DAY
    if window not in (Window.DAY, Window.MONTH):
        return 0, _FOREVER
    # Without a lookup for UTC: a machine may have no table of zones.
    zone = UTC if time_zone == UTC_ZONE else ZoneInfo(time_zone)
    today = datetime.fromtimestamp(now // _SECOND, zone).date()
    if window is Window.DAY:
        return _midnight(today, zone), _midnight(today + timedelta(days=1), zone)
    first = today.replace(day=1)
    return _midnight(first, zone), _midnight((first + _OVER_A_MONTH).replace(day=1), zone)


def _midnight(day: date, zone: tzinfo) -> int:
    """When a day begins; where the clocks skip midnight, when they do so."""
    return int(datetime.combine(day, time.min, zone).timestamp()) * _SECOND


class Counter(Protocol):
    """Counts one unit over one window; amounts and limits are internal counts.

    `read` comes first: it moves the window on, and every other method trusts it.
    """

    def read(self, now: int, limit: int, amount: int) -> Reading:
        """Tells what counts now, and when `amount` fits; the limit may differ each time."""
        ...

    def take(self, reservation_id: str, amount: int, *, expires: int) -> int:
        """Adds `amount`; returns a mark that says where it was added."""
        ...

    def adjust(self, mark: int, amount: int, delta: int, *, now: int) -> None:
        """Changes by `delta` the `amount` that was taken at `mark`, as far as it still counts."""
        ...

    def keep(self, reservation_id: str, expires: int) -> None:
        """Prolongs the lease of what a reservation occupies."""
        ...

    def release(self, reservation_id: str) -> None:
        """Ends what a reservation occupies only while it runs."""
        ...


class _Amounts:
    """What counters of amounts have in common: nothing in them runs."""

    __slots__ = ()

    def keep(self, reservation_id: str, expires: int) -> None:
        """Nothing runs."""

    def release(self, reservation_id: str) -> None:
        """Nothing runs."""


class CalendarCounter(_Amounts):
    """An hour, a day, a month or all time: begins anew at fixed instants."""

    __slots__ = ("_end", "_start", "_used", "_window", "_zone")

    def __init__(
        self, window: Window, now: int, *, used: int = 0, time_zone: str = UTC_ZONE
    ) -> None:
        self._window = window
        self._zone = time_zone
        self._begin(now, used)

    def _begin(self, now: int, used: int) -> None:
        self._start, self._end = window_bounds(self._window, now, self._zone)
        self._used = used

    def read(self, now: int, limit: int, amount: int) -> Reading:
        if now >= self._end:
            self._begin(now, 0)
        return Reading(self._used, self._end, self._end)

    def take(self, reservation_id: str, amount: int, *, expires: int) -> int:
        self._used += amount
        return self._start

    def adjust(self, mark: int, amount: int, delta: int, *, now: int) -> None:
        if mark == self._start:
            self._used += delta


class BucketCounter(_Amounts):
    """A minute: a bucket that holds the limit and drains it in a minute, steadily (GCRA).

    What is put in leaves in the order in which it came. Who took more than was needed gets
    back what of it has not drained yet: giving back more would let through what the limit
    forbids. All numbers are whole; see `DROPS`.
    """

    __slots__ = ("_holes", "_level", "_limit", "_poured", "_seen")

    def __init__(self, now: int) -> None:
        self._holes: list[tuple[int, int]] = []  # where something was given back, and how much
        self._level = 0
        self._poured = 0
        self._limit = 0
        self._seen = now

    def read(self, now: int, limit: int, amount: int) -> Reading:
        self._drain(now)
        self._limit = limit
        return Reading(
            -(-self._level // DROPS),
            self._when(self._level, now),
            self._when(self._level + (amount - limit) * DROPS, now),
        )

    def take(self, reservation_id: str, amount: int, *, expires: int) -> int:
        mark = self._poured
        self._poured += amount * DROPS
        self._level += amount * DROPS
        return mark

    def adjust(self, mark: int, amount: int, delta: int, *, now: int) -> None:
        self._drain(now)
        drops = delta * DROPS
        if drops > 0:
            self._poured += drops
        else:
            end = mark + amount * DROPS
            drops = -min(-drops, max(0, end - max(mark, self._front())))
            if drops:
                self._holes.append((end + drops, -drops))
                self._holes.sort()
                del self._holes[:-MOST_HOLES]
        self._level += drops

    def _front(self) -> int:
        """What was poured in before this place has drained or was given back."""
        gone = sum(length for _, length in self._holes)
        front = self._poured - self._level - gone
        while self._holes and self._holes[0][0] <= front:
            front += self._holes.pop(0)[1]
        return front

    def _drain(self, now: int) -> None:
        if now > self._seen:  # a clock that was set back drains nothing
            self._level = max(0, self._level - self._limit * (now - self._seen))
            self._seen = now

    def _when(self, drops: int, now: int) -> int:
        """When so many drops will have drained."""
        return now + -(-max(drops, 0) // self._limit) if self._limit else _FOREVER


class SlotCounter:
    """What runs at this moment; a slot whose lease has passed is free."""

    __slots__ = ("_expiries",)

    def __init__(self) -> None:
        self._expiries: dict[str, int] = {}

    def read(self, now: int, limit: int, amount: int) -> Reading:
        if self._expiries and min(self._expiries.values()) <= now:
            self._expiries = {key: end for key, end in self._expiries.items() if end > now}
        return Reading(len(self._expiries), now + _SECOND, now + _SECOND)

    def take(self, reservation_id: str, amount: int, *, expires: int) -> int:
        if amount:
            self._expiries[reservation_id] = expires
        return 0

    def adjust(self, mark: int, amount: int, delta: int, *, now: int) -> None:
        """A slot is one slot whatever was produced."""

    def keep(self, reservation_id: str, expires: int) -> None:
        if reservation_id in self._expiries:
            self._expiries[reservation_id] = expires

    def release(self, reservation_id: str) -> None:
        self._expiries.pop(reservation_id, None)


def make_counter(window: Window, now: int, *, used: int = 0, time_zone: str = UTC_ZONE) -> Counter:
    """The counter for `window` in `time_zone`; `used` (calendar windows only) is consumed."""
    if window is Window.MINUTE:
        return BucketCounter(now)
    if window is Window.CONCURRENT:
        return SlotCounter()
    return CalendarCounter(window, now, used=used, time_zone=time_zone)
