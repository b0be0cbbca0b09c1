"""Stops asking a part that does not answer, so that nobody waits for it; the Redis store asks."""

from collections.abc import Callable
from typing import Final

_FAILURES: Final = 5
_PAUSE_SECONDS: Final = 1.0


class Breaker:
    """Opens after failures in a row; then one attempt a second finds out whether it is back.

    Args:
        clock: Returns seconds, monotonic.
        failures: In a row until it opens.
        pause: Seconds between attempts while it is open.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        failures: int = _FAILURES,
        pause: float = _PAUSE_SECONDS,
    ) -> None:
        self._clock = clock
        self._most = failures
        self._pause = pause
        self._failures = 0
        self._next = float("-inf")

    @property
    def is_open(self) -> bool:
        """Whether the part is taken to be away."""
        return self._failures >= self._most

    def allows(self) -> bool:
        """Whether to try now; of those who ask an open breaker, one a second may."""
        if not self.is_open:
            return True
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self._pause
        return True

    def succeeded(self) -> None:
        """Notes an answer."""
        self._failures = 0

    def failed(self) -> None:
        """Notes that there was none."""
        self._failures += 1
        if self._failures == self._most:
            self._next = self._clock() + self._pause
