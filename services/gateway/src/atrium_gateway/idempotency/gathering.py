"""Group commit: what many requests ask of the database at once is one transaction.

`store.py` adds operations; a thread of its own works on them, a batch at a time, so that the
event loop pays for one hand-over instead of for each statement.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, TypeVar

BATCH: Final = 200
"""Most operations in one transaction."""
BATCH_BYTES: Final = 8 << 20
"""A batch that has so many bytes takes no more."""

Operation = TypeVar("Operation")
Outcome = TypeVar("Outcome")


class Gathering(Generic[Operation, Outcome]):
    """Operations that wait for their batch.

    Args:
        work: Does a batch and gives an outcome for each operation, in their order; runs in
            the thread. An outcome that is an error is raised by its operation's future;
            what `work` raises, by each of the batch.
        size: Bytes that an operation brings along.
        pause: Gives the shortest time in seconds from the start of a batch to the next: under
            load more requests share a commit, which costs more than all else.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Operation]], Sequence[Outcome]],
        *,
        size: Callable[[Operation], int],
        pause: Callable[[], float],
    ) -> None:
        self._work = work
        self._size = size
        self._pause = pause
        self._waiting: deque[tuple[Operation, asyncio.Future[Outcome]]] = deque()
        self._timer: asyncio.Handle | None = None
        self._running = False
        self._next_start = 0.0
        self._idle: asyncio.Future[None] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def add(self, operation: Operation) -> "asyncio.Future[Outcome]":
        """Queues an operation; the future has its outcome once it is durable."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        self._waiting.append((operation, future))
        if self._timer is None and not self._running:
            self._schedule(loop)
        return future

    async def close(self, last: Callable[[], None]) -> None:
        """Waits for everything that was added, then runs `last` in the thread and ends it."""
        loop = asyncio.get_running_loop()
        while self._waiting or self._running:
            self._idle = loop.create_future()
            await self._idle
        if self._thread is not None:
            await loop.run_in_executor(self._thread, last)
            self._thread.shutdown()
            self._thread = None

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        wait = self._next_start - loop.time()
        if wait > 0:
            self._timer = loop.call_later(wait, self._begin, loop)
        else:
            self._timer = loop.call_soon(self._begin, loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hands the next batch to the thread."""
        self._timer = None
        self._running = True
        self._next_start = loop.time() + self._pause()
        batch = self._take()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="idempotency")
        done = loop.run_in_executor(self._thread, self._work, [operation for operation, _ in batch])
        done.add_done_callback(lambda done: self._finish(loop, batch, done))

    def _take(self) -> list[tuple[Operation, "asyncio.Future[Outcome]"]]:
        batch: list[tuple[Operation, asyncio.Future[Outcome]]] = []
        left = BATCH_BYTES
        while self._waiting and len(batch) < BATCH and left > 0:
            batch.append(self._waiting.popleft())
            left -= self._size(batch[-1][0])
        return batch

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: Sequence[tuple[Operation, "asyncio.Future[Outcome]"]],
        done: "asyncio.Future[Sequence[Outcome]]",
    ) -> None:
        self._running = False
        # Whoever is done already has been cancelled.
        if (error := done.exception()) is not None:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), outcome in zip(batch, done.result(), strict=True):
                if future.done():
                    continue
                if isinstance(outcome, BaseException):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)
        if self._waiting:
            self._schedule(loop)
        elif self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
