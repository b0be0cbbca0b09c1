"""Threads that read pages, each with tools of its own; a page is held until it is let go of.

Engines that read in this process run on these; the servicer's queue has a slot for each.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from atrium_common.work import CancelToken, DeviceThread

T = TypeVar("T")
ToolT = TypeVar("ToolT")

_CLOSING_SECONDS = 10.0
"""Longest wait for a page that is being read when the engine is closed."""


class _Worker(Generic[ToolT]):
    """A thread, and its tools by the model that they are for."""

    def __init__(self, name: str) -> None:
        self.thread = DeviceThread(name)
        self.tools: dict[str, ToolT] = {}
        self.users = 0


class Workers(Generic[ToolT]):
    """As many threads as pages are read at once. Belongs to one event loop."""

    def __init__(self, count: int, *, name: str, close_tool: Callable[[ToolT], None]) -> None:
        """Starts the threads.

        Args:
            count: Threads, 1 or more.
            name: Of the threads, in stack dumps.
            close_tool: Frees what a tool holds; called in the tool's thread.
        """
        self._workers: list[_Worker[ToolT]] = [_Worker(f"{name}-{n}") for n in range(count)]
        self._close_tool = close_tool
        self._tokens: set[CancelToken] = set()
        self._closed = False

    async def call(
        self, key: str, make: Callable[[], ToolT], work: Callable[[ToolT, CancelToken], T]
    ) -> T:
        """Does work in a free thread, or in the one with the fewest before it.

        A caller that is cancelled waits until the thread has let go of the work; the token
        asks it to.

        Args:
            key: Which of the thread's tools to use.
            make: Makes it, in the thread, where the thread does not have it yet.
            work: Uses the tool.

        Raises:
            Unavailable: The threads are closed.
        """
        worker = min(self._workers, key=lambda one: one.users)
        token = CancelToken()

        def do() -> T:
            token.raise_if_cancelled()
            if key not in worker.tools:
                worker.tools[key] = make()
            return work(worker.tools[key], token)

        worker.users += 1
        self._tokens.add(token)
        try:
            return await _held(worker.thread.call(do), token)
        finally:
            self._tokens.discard(token)
            worker.users -= 1

    async def drop(self, key: str) -> None:
        """Closes the tools of one key in every thread, behind what runs now.

        Does nothing once the threads are closed, for their tools are, too.
        """
        for worker in () if self._closed else self._workers:
            await worker.thread.call(self._drop, worker, key)
            await worker.thread.flush()

    async def close(self) -> None:
        """Asks running work to stop, closes the tools and ends the threads. May be called twice."""
        if self._closed:
            return
        self._closed = True
        for token in self._tokens:
            token.cancel()
        await asyncio.gather(*map(self._end, self._workers))

    async def _end(self, worker: _Worker[ToolT]) -> None:
        try:
            async with asyncio.timeout(_CLOSING_SECONDS):
                for key in list(worker.tools):
                    await worker.thread.call(self._drop, worker, key)
        except TimeoutError:
            pass  # the page keeps its tool; the thread is a daemon and ends with the process
        worker.thread.close(timeout=0.0)

    def _drop(self, worker: _Worker[ToolT], key: str) -> None:
        if key in worker.tools:
            self._close_tool(worker.tools.pop(key))


async def _held(work: Awaitable[T], token: CancelToken) -> T:
    """Waits for work, after a cancellation too; the cancellation is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as err:
            token.cancel()
            cancellation = err
    if cancellation is not None:
        task.cancelled() or task.exception()  # seen, so that asyncio does not complain
        raise cancellation
    return task.result()
