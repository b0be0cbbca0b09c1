"""What a session has to say and its reader has not taken yet.

`session.py` puts steps in and takes them out. A partial that nobody has read is replaced
by the next one, and a step that only brings usage goes in only where nothing waits.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from atrium_stt.domain import LiveStep, PartialSegment

_MANY = 256
"""Unread steps at which no more audio is taken: minutes of talk."""


class Outbox:
    """A queue of steps between a session's work and its reader."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        """Makes an empty outbox.

        Args:
            clock: Monotonic seconds.
        """
        self._clock = clock
        self._steps: deque[LiveStep | None] = deque()
        self._since = 0.0
        self._news = asyncio.Event()
        self._taken = asyncio.Event()
        self._closed = False

    @property
    def unread_seconds(self) -> float:
        """How long the reader has taken nothing although something was there."""
        return self._clock() - self._since if self._steps else 0.0

    async def room(self) -> None:
        """Waits while much lies unread: who does not read is not listened to."""
        while len(self._steps) >= _MANY:
            self._taken.clear()
            await self._taken.wait()

    def put(self, step: LiveStep | None) -> None:
        """Adds a step; ``None`` for one that only brings usage."""
        if step is None and self._steps:
            return
        if not self._steps:
            self._since = self._clock()
        if isinstance(step, PartialSegment) and self._steps:
            last = self._steps[-1]
            if isinstance(last, PartialSegment) and last.segment.index == step.segment.index:
                self._steps.pop()
        self._steps.append(step)
        self._news.set()

    def close(self) -> None:
        """Says that nothing more comes."""
        self._closed = True
        self._news.set()

    async def take(self) -> tuple[LiveStep | None] | None:
        """Waits for the next step, in a tuple; ``None`` at the end."""
        while not self._steps:
            if self._closed:
                return None
            self._news.clear()
            await self._news.wait()
        self._since = self._clock()
        self._taken.set()
        return (self._steps.popleft(),)
