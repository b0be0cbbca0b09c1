"""The counters behind the in-process store: one class per kind of window.

A counter keeps what was taken and where, so that a later adjustment reaches the same
part of the window or, if that has passed, nothing. Times are Unix milliseconds.
"""

from collections import deque
from datetime import UTC, datetime
from typing import Final, Protocol

from atrium_gateway.quota.limits import NEVER, Window

_SECOND: Final = 1000
_HOUR: Final = 3600 * _SECOND
_DAY: Final = 24 * _HOUR
_FOREVER: Final = int(NEVER.timestamp()) * _SECOND
_SLIDING_SECONDS: Final = 60


def window_bounds(window: Window, now: int) -> tuple[int, int]:
    """First and one-past-last millisecond of the calendar window around `now`, in UTC."""
    if window is Window.HOUR:
        return now - now % _HOUR, now - now % _HOUR + _HOUR
    if window is Window.DAY:
        return now - now % _DAY, now - now % _DAY + _DAY
    if window is Window.MONTH:
        first = datetime.fromtimestamp(now // _SECOND, UTC).replace(
            day=1, hour=0, minute=0, second=0
        )
        year, month = divmod(first.year * 12 + first.month, 12)
        following = first.replace(year=year, month=month + 1)
        return int(first.timestamp()) * _SECOND, int(following.timestamp()) * _SECOND
    return 0, _FOREVER


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / _SECOND, UTC)


class Counter(Protocol):
    """Counts one unit over one window; amounts are internal counts."""

    def used(self, now: int) -> int:
        """What counts against the limit now."""
        ...

    def take(self, reservation_id: str, amount: int, *, now: int, expires: int) -> int:
        """Adds `amount`; returns a mark that says where it was added.

        Call `used` for the same `now` first: it moves the window on.
        """
        ...

    def adjust(self, reservation_id: str, mark: int, delta: int) -> None:
        """Changes by `delta` what was taken at `mark`, if that still counts."""
        ...

    def keep(self, reservation_id: str, expires: int) -> None:
        """Prolongs the lease of what a reservation occupies."""
        ...

    def release(self, reservation_id: str) -> None:
        """Ends what a reservation occupies only while it runs."""
        ...

    def resets(self, now: int) -> datetime:
        """When room comes back by time alone, aware UTC."""
        ...


class CalendarCounter:
    """An hour, a day, a month or all time: begins anew at fixed instants."""

    __slots__ = ("_end", "_resets", "_start", "_used", "_window")

    def __init__(self, window: Window, now: int, *, used: int = 0) -> None:
        self._window = window
        self._begin(now, used)

    def _begin(self, now: int, used: int) -> None:
        self._start, self._end = window_bounds(self._window, now)
        self._resets = _time(self._end)
        self._used = used

    def used(self, now: int) -> int:
        if now >= self._end:
            self._begin(now, 0)
        return self._used

    def take(self, reservation_id: str, amount: int, *, now: int, expires: int) -> int:
        self._used += amount
        return self._start

    def adjust(self, reservation_id: str, mark: int, delta: int) -> None:
        if mark == self._start:
            self._used += delta

    def keep(self, reservation_id: str, expires: int) -> None:
        """A calendar window holds amounts, nothing that runs."""

    def release(self, reservation_id: str) -> None:
        """A calendar window holds amounts, nothing that runs."""

    def resets(self, now: int) -> datetime:
        return self._resets


class SlidingCounter:
    """The last minute, in steps of a second: an amount leaves 60 to 61 s after it came."""

    __slots__ = ("_steps", "_used")

    def __init__(self) -> None:
        self._steps: deque[list[int]] = deque()
        self._used = 0

    def used(self, now: int) -> int:
        oldest = now // _SECOND - _SLIDING_SECONDS
        while self._steps and self._steps[0][0] < oldest:
            self._used -= self._steps.popleft()[1]
        return self._used

    def take(self, reservation_id: str, amount: int, *, now: int, expires: int) -> int:
        second = now // _SECOND
        # A clock set back must not reorder the steps.
        if not self._steps or self._steps[-1][0] < second:
            self._steps.append([second, 0])
        self._steps[-1][1] += amount
        self._used += amount
        return self._steps[-1][0]

    def adjust(self, reservation_id: str, mark: int, delta: int) -> None:
        for step in reversed(self._steps):
            if step[0] == mark:
                step[1] += delta
                self._used += delta
                return

    def keep(self, reservation_id: str, expires: int) -> None:
        """A sliding window holds amounts, nothing that runs."""

    def release(self, reservation_id: str) -> None:
        """A sliding window holds amounts, nothing that runs."""

    def resets(self, now: int) -> datetime:
        first = next((step[0] for step in self._steps if step[1]), now // _SECOND)
        return _time((first + _SLIDING_SECONDS + 1) * _SECOND)


class SlotCounter:
    """What runs at this moment; a slot whose lease has passed is free."""

    __slots__ = ("_expiries",)

    def __init__(self) -> None:
        self._expiries: dict[str, int] = {}

    def used(self, now: int) -> int:
        if self._expiries and min(self._expiries.values()) <= now:
            self._expiries = {key: end for key, end in self._expiries.items() if end > now}
        return len(self._expiries)

    def take(self, reservation_id: str, amount: int, *, now: int, expires: int) -> int:
        self._expiries[reservation_id] = expires
        return 0

    def adjust(self, reservation_id: str, mark: int, delta: int) -> None:
        """A slot is one slot whatever was produced."""

    def keep(self, reservation_id: str, expires: int) -> None:
        if reservation_id in self._expiries:
            self._expiries[reservation_id] = expires

    def release(self, reservation_id: str) -> None:
        self._expiries.pop(reservation_id, None)

    def resets(self, now: int) -> datetime:
        return _time(now + _SECOND)


def make_counter(window: Window, now: int, *, used: int = 0) -> Counter:
    """The counter for `window`, with `used` already consumed (calendar windows only)."""
    if window is Window.MINUTE:
        return SlidingCounter()
    if window is Window.CONCURRENT:
        return SlotCounter()
    return CalendarCounter(window, now, used=used)
