"""How long a batch that is not full waits for company; the loop asks before each batch."""

from collections.abc import Callable

_LONGEST = 0.005
_SHARE = 0.1


class Gathering:
    """A short wait that adapts: none for a lone caller, a little where many come at once.

    Callers that were in one batch are answered together, and those who ask again do so
    together. The first of them would find the device free and run alone, and all others
    would wait for it: so it waits for as many as there were last time, but never for longer
    than a small share of what the last batch took.
    """

    def __init__(
        self, *, clock: Callable[[], float], longest: float = _LONGEST, share: float = _SHARE
    ) -> None:
        """Starts idle.

        Args:
            clock: Monotonic seconds.
            longest: Most seconds to wait for one batch.
            share: Most to wait, as a part of the last batch's duration, 0 to 1.
        """
        self._clock = clock
        self._longest = longest
        self._share = share
        self._last_rows = 0
        self._last_took = 0.0
        self._last_end = 0.0
        self._until: float | None = None

    def patience(self, rows: int, room: int) -> float:
        """Returns for how many more seconds the batch should wait; 0 starts it.

        Args:
            rows: Rows that wait, 1 or more.
            room: Rows that a batch holds.
        """
        now = self._clock()
        if self._until is None:
            idle = now - self._last_end > self._last_took
            self._until = now if idle else now + min(self._longest, self._share * self._last_took)
        if self._last_rows <= 1 or rows >= min(self._last_rows, room):
            return 0.0
        return max(0.0, self._until - now)

    def started(self) -> None:
        """The batch begins: the next one forms anew."""
        self._until = None

    def ended(self, rows: int, took: float) -> None:
        """A batch of `rows` ended after `took` seconds."""
        self._last_rows = rows
        self._last_took = took
        self._last_end = self._clock()
