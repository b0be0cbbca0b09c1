"""Closes reservations in the background until admission has acknowledged them.

A settlement must outlive the RPC that caused it: the caller may have left, the
gateway may be restarting. `interceptors/usage.py` hands them over here and
`server.py` waits for them when the service stops.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from atrium_common.errors import (
    AtriumError,
    DeadlineExceeded,
    InternalError,
    NotFound,
    Overloaded,
    Unavailable,
)
from atrium_common.metrics import ServiceMetrics

_PASSING = (Unavailable, DeadlineExceeded, Overloaded, InternalError)
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


class Settlements:
    """The closings that are under way in one server."""

    def __init__(
        self, metrics: ServiceMetrics, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._closed = metrics.settlements
        self._clock = clock
        self._running: set[asyncio.Task[Any]] = set()
        self._log = structlog.get_logger("atrium.usage")

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs `work` apart from the RPC, so that the RPC's cancel does not reach it."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def close(
        self,
        send: Callable[[], Awaitable[None]],
        *,
        reservation_id: str,
        result: str,
        until: float,
    ) -> None:
        """Calls `send` until it is acknowledged or `until` (clock seconds) has passed.

        `send` must be idempotent. Past `until` the lease has expired and admission
        closes the reservation itself, as estimated.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                await send()
            except _PASSING as error:
                if self._clock() + pause > until:
                    self._lost(reservation_id, result, error)
                    return
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(pause * 2, _LONGEST_PAUSE)
            except NotFound as error:
                self._lost(reservation_id, result, error)
                return
            except AtriumError as error:
                self._lost(reservation_id, result, error)
                return
            else:
                self._closed.labels(result).inc()
                return

    async def drain(self, timeout: float) -> None:
        """Waits up to `timeout` seconds for all closings, then gives the rest up."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=timeout)
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _lost(self, reservation_id: str, result: str, error: AtriumError) -> None:
        self._closed.labels("lost").inc()
        self._log.error(
            "settlement not acknowledged; the lease closes it as estimated",
            reservation_id=reservation_id,
            result=result,
            reason=error.reason,
        )
