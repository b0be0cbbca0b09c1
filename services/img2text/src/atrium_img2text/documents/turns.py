"""A caller's turns at a queue. Documents wait in them."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from atrium_common.context import RequestContext
from atrium_common.work import Ticket, WorkQueue


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
