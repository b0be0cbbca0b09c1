"""Draws planned requests: a seat at the engine, its events, their finish; for both services.

A servicer calls `draw` with a plan. Seats are many, because the engine shares its device
among the requests it holds, step by step; the queue before them bounds what is held, and
refuses at once who would wait too long.
"""

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace

from atrium_common.context import RequestContext, report_usage
from atrium_common.domain import Usage
from atrium_common.work import WorkQueue
from atrium_diffusion.answer import Answer
from atrium_diffusion.domain import OutputOptions, RequestPlan
from atrium_diffusion.finishing import Finisher
from atrium_diffusion.router import PictureRouter


class Studio:
    """The engines with their queues in front and the finisher behind."""

    def __init__(
        self,
        engines: PictureRouter,
        *,
        finisher: Finisher | None = None,
        max_requests: int = 256,
        max_queue: int = 64,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Puts a queue in front of each engine.

        Args:
            engines: The engines.
            finisher: Checks and encodes what they draw.
            max_requests: Seats at an engine, where it takes so many.
            max_queue: Requests that may wait for a seat.
            clock: Monotonic seconds; the same clock as the callers' deadlines.
        """
        self._engines = engines
        self._finisher = finisher or Finisher()
        self._seats = {
            engine.name: WorkQueue(
                slots=min(max_requests, engine.scheduling.slots), max_queue=max_queue, clock=clock
            )
            for engine in engines.engines
        }

    @property
    def queues(self) -> Mapping[str, WorkQueue]:
        """The queues, by the engines' names."""
        return self._seats

    def check_ready(self, model: str) -> None:
        """Refuses a model that can't draw now, so that nobody uploads or waits in vain.

        Raises:
            NotFound: No engine serves it.
            Unavailable: It has failed; one that is only not loaded is loaded by its first use.
        """
        self._engines.check_ready(model)

    async def draw(
        self, plan: RequestPlan, output: OutputOptions, caller: RequestContext
    ) -> AsyncGenerator[Answer, None]:
        """Draws a request; closing it frees its place within one step.

        Yields:
            An answer without a step once the request has its seat; then what
            `Finisher.finish` yields.

        Raises:
            Overloaded: No seat is free, and too many wait for one.
            DeadlineExceeded: None will be free before the caller's deadline.
            Unavailable: The model can't draw now.
            AtriumError: What the engine raises.
        """
        job = replace(plan.job, tenant=caller.tenant, weight=caller.weight)
        plan = replace(plan, job=job)
        self.check_ready(job.model)
        engine = self._engines.engine_of(job.model)
        async with self._seats[engine.name].enter(
            tenant=caller.tenant,
            weight=caller.weight,
            cost=max(1, plan.millimegapixel_steps),
            deadline=caller.deadline,
            model=job.model,
        ) as ticket:
            waited = ticket.queue_time
            seated = Usage(
                model=job.model, model_digest=plan.digest, engine=engine.name, queue_time=waited
            )
            yield Answer(step=None, usage=seated)
            finishing = self._finisher.finish(
                plan,
                engine.draw(plan),
                output=output,
                engine=engine.name,
                queue_time=waited,
                report=report_usage,
            )
            async with aclosing(finishing) as answers:
                async for answer in answers:
                    yield answer
