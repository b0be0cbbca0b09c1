"""Describes pictures and answers questions about them: a seat at the engine, then its events.

The servicer calls this for one picture, `analysing.py` for several orders at once.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol, TypeVar, cast

from atrium_common.context import RequestContext
from atrium_common.domain import Usage
from atrium_img2text.bounds import description_bound, question_bound
from atrium_img2text.domain import (
    AnswerEvent,
    Counts,
    DescriptionEvent,
    DescriptionJob,
    QuestionJob,
)
from atrium_img2text.engines.base import VisionEngine
from atrium_img2text.engines.router import SightRouter
from atrium_img2text.seats import Seats
from atrium_img2text.steps import Report, Step


class _Event(Protocol):
    @property
    def counts(self) -> Counts: ...


E = TypeVar("E", bound=_Event)


class Seeing:
    """Lets the engines that see do their work."""

    def __init__(self, engines: SightRouter, seats: Seats) -> None:
        """Takes the engines and the seats at them."""
        self._engines = engines
        self._seats = seats

    def describe(
        self, job: DescriptionJob, caller: RequestContext, report: Report
    ) -> AsyncGenerator[Step[DescriptionEvent], None]:
        """Describes a picture; closing it stops the work within one step.

        Args:
            job: What to do.
            caller: Whose it is.
            report: Hears of each event's usage.

        Raises:
            Overloaded: Too many wait for the engine.
            DeadlineExceeded: It will not be free before the caller's deadline.
            AtriumError: What the engine raises.
        """
        bound = description_bound(job.order)
        return self._run(bound, lambda engine: engine.describe(job), caller, report)

    def answer(
        self, job: QuestionJob, caller: RequestContext, report: Report
    ) -> AsyncGenerator[Step[AnswerEvent], None]:
        """Answers a question; as `describe`."""
        bound = question_bound(job.order)
        return self._run(bound, lambda engine: engine.answer(job), caller, report)

    async def _run(
        self,
        bound: Usage,
        start: Callable[[VisionEngine], AsyncIterator[E]],
        caller: RequestContext,
        report: Report,
    ) -> AsyncGenerator[Step[E], None]:
        engine = self._engines.vision(bound.model)
        cost = bound.input_tokens + bound.output_tokens
        async with self._seats.enter(bound.model, cost=cost, caller=caller) as ticket:
            label = replace(self._seats.label(bound.model), queue_time=ticket.queue_time, images=1)
            # Engines write their streams as async generators; the port promises less.
            stream = cast("AsyncGenerator[E, None]", start(engine))
            async with aclosing(stream) as events:
                async for event in events:
                    usage = _counted(label, event.counts)
                    report(usage)
                    yield Step(event, usage)


def _counted(label: Usage, counts: Counts) -> Usage:
    return replace(
        label,
        inference_time=counts.inference,
        input_tokens=counts.input_tokens,
        output_tokens=counts.output_tokens,
        estimated=counts.estimated,
    )
