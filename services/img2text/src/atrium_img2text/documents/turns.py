"""A caller's turns at a queue, and work that nobody leaves behind. Documents use both."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeVar

from atrium_common.context import RequestContext
from atrium_common.work import Ticket, WorkQueue

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Turns:
    """Where a caller waits for its turns.

    Attributes:
        queue: Shared by all callers.
        caller: Whose turns they are.
    """

    queue: WorkQueue
    caller: RequestContext

    def enter(self, cost: float) -> AbstractAsyncContextManager[Ticket]:
        """Waits for a turn, which lasts while the block runs; raises as `WorkQueue.enter`."""
        return self.queue.enter(
            tenant=self.caller.tenant,
            weight=self.caller.weight,
            cost=cost,
            deadline=self.caller.deadline,
        )


async def in_thread(work: Callable[[], T]) -> T:
    """Runs `work` in a thread. A caller who is cancelled waits until the thread is done."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    finally:
        await asyncio.wait({working})
