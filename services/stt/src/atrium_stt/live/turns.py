"""A session's turns at its engine, and what they took; `decoding.py` takes them."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from atrium_common.work import WorkQueue

_SHORTEST_SECONDS = 0.1


class Turns:
    """One session's place in the queue that all work of an engine passes."""

    def __init__(
        self,
        queue: WorkQueue,
        *,
        tenant: str,
        weight: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins without a turn.

        Args:
            queue: Of the engine. It must have room for every session, so that no final
                text is refused for want of a place.
            tenant: Who pays.
            weight: Of the tenant.
            clock: Monotonic seconds.
        """
        self._queue = queue
        self._tenant = tenant
        self._weight = weight
        self._clock = clock
        self._waited = timedelta()
        self._busy = 0.0

    @property
    def crowded(self) -> bool:
        """Whether somebody waits for a turn."""
        return self._queue.depth > 0

    @property
    def queue_time(self) -> timedelta:
        """Time that was spent waiting, in all."""
        return self._waited

    @property
    def inference_time(self) -> timedelta:
        """Time that the turns took, in all."""
        return timedelta(seconds=self._busy)

    @asynccontextmanager
    async def take(self, seconds: float) -> AsyncIterator[None]:
        """Waits for a turn and holds it while the block runs.

        Args:
            seconds: Length of the audio that is decoded.
        """
        async with self._queue.enter(
            tenant=self._tenant, weight=self._weight, cost=max(seconds, _SHORTEST_SECONDS)
        ) as ticket:
            self._waited += ticket.queue_time
            started = self._clock()
            try:
                yield
            finally:
                self._busy += self._clock() - started
