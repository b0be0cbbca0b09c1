"""The engines with a queue in front of each: captions and reading never wait for each other.

Whatever works with an engine enters here first.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

from atrium_common.context import RequestContext
from atrium_common.domain import Usage
from atrium_common.work import Ticket, WorkQueue
from atrium_img2text.engines.router import SightRouter


class Seats:
    """Seats at the engines, in fair order across tenants."""

    def __init__(
        self,
        engines: SightRouter,
        *,
        max_queue: int = 64,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Puts a queue in front of each engine.

        Args:
            engines: The engines.
            max_queue: Requests that may wait for one.
            clock: Monotonic seconds; the same clock as the callers' deadlines.
        """
        self._engines = engines
        self._queues = {
            engine.name: WorkQueue(slots=engine.scheduling.slots, max_queue=max_queue, clock=clock)
            for engine in engines.engines
        }

    @property
    def queues(self) -> Mapping[str, WorkQueue]:
        """The queues, by the engines' names."""
        return self._queues

    def enter(
        self, model: str, *, cost: float, caller: RequestContext
    ) -> AbstractAsyncContextManager[Ticket]:
        """Waits for a seat at the engine of `model`, held while the block runs.

        Raises:
            Overloaded: Too many wait for one.
            DeadlineExceeded: None will be free before the caller's deadline.
        """
        return self._queues[self._engines.engine_of(model).name].enter(
            tenant=caller.tenant,
            weight=caller.weight,
            cost=cost,
            deadline=caller.deadline,
            model=model,
        )

    def label(self, model: str) -> Usage:
        """Returns a usage that says who does the work, and counts nothing yet."""
        engine = self._engines.engine_of(model)
        digest = next((info.digest for info in engine.models() if info.id == model), "")
        return Usage(model=model, model_digest=digest, engine=engine.name)
