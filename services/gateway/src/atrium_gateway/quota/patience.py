"""A time-out for answers that does not blame the other side for our own loop being busy.

When thousands of requests arrive at once, the loop may look at its sockets only much later:
the answers have long been there. The Redis store waits by it;
`redis_line.py` counts the same slices.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

SLICES: Final = 10
"""Parts of a time-out that are looked at one by one."""
MOST_SLICES: Final = 100
"""Ends any wait: ten times the time-out, and how late the loop was each time."""


class _Watch:
    """Ends `limit` after enough slices of time in which the loop was on time."""

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._slice = seconds / SLICES
        self._left = SLICES
        self._most = MOST_SLICES
        self._begin()

    def stop(self) -> None:
        self._timer.cancel()

    def _begin(self) -> None:
        self._due = self._loop.time() + self._slice
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        self._most -= 1
        if now - self._due < self._slice / 2:
            self._left -= 1
        if self._left and self._most:
            self._begin()
        else:
            self._limit.reschedule(now)


@asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """Ends its block with `TimeoutError` after so many seconds in which the loop was free."""
    async with asyncio.timeout(None) as limit:
        watch = _Watch(limit, seconds)
        try:
            yield
        finally:
            watch.stop()
