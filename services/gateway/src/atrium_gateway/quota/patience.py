"""A time-out for answers that does not blame the other side for our own loop being busy.

When thousands of requests arrive at once, the loop may look at its sockets only a second
later: the answers have long been there. The Redis store waits by it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

_LATE_SECONDS: Final = 0.005
"""A timer that fires so much too late tells that the loop was busy."""
_MOST: Final = 100
"""Times that a wait is prolonged for that: 5 s, if each is of 50 ms."""


@asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """Ends its block with `TimeoutError` after so many seconds in which the loop was free."""
    loop = asyncio.get_running_loop()
    left = _MOST

    due = loop.time() + seconds
    timer = loop.call_at(due, lambda: look())

    def look() -> None:
        nonlocal due, timer, left
        now = loop.time()
        left -= 1
        if left and now - due > _LATE_SECONDS:
            due = now + seconds
            timer = loop.call_at(due, look)
        else:
            limit.reschedule(now)

    try:
        async with asyncio.timeout(None) as limit:
            yield
    finally:
        timer.cancel()
