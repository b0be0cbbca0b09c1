"""Carries plans out: seats, turns, work ahead, encoding and metering, once for all engines.

`servicer.py` calls this. A request takes a *seat* in the engine's outer queue, which is
bounded and refuses at once; seated, each of its utterances takes a *turn* in the inner
queue, so callers interleave sentence by sentence and no seated request is refused midway.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TypeAlias

from atrium_common.context import RequestContext, report_usage
from atrium_common.work import Ticket, WorkQueue
from atrium_tts.domain import SentenceMark, SpeechEnd, SpeechEvent, SpeechInfo, Utterance
from atrium_tts.engines.base import SpeechEngine
from atrium_tts.engines.router import EngineRouter
from atrium_tts.speech_lookahead import Begun, Ended, Lookahead
from atrium_tts.speech_meter import SpeechMeter
from atrium_tts.speech_output import SpeechOutput
from atrium_tts.speech_plan import Line, SpeechPlan

Step: TypeAlias = SpeechInfo | SentenceMark | bytes | SpeechEnd


class Speaker:
    """Speaks with the engines; callers share each of them fairly."""

    def __init__(
        self,
        engines: EngineRouter,
        *,
        max_speeches: int = 32,
        max_queue: int = 64,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Puts two queues in front of each engine.

        Args:
            engines: The engines.
            max_speeches: Requests that an engine serves at once, in turns.
            max_queue: Requests that may wait for a seat.
            clock: Monotonic seconds; the same clock as the callers' deadlines.
        """
        self._clock = clock
        self._seats = {
            engine.name: WorkQueue(slots=max_speeches, max_queue=max_queue, clock=clock)
            for engine in engines.engines
        }
        self._turns = {
            engine.name: WorkQueue(
                slots=engine.scheduling.slots, max_queue=max_speeches, clock=clock
            )
            for engine in engines.engines
        }

    @property
    def queues(self) -> Mapping[str, WorkQueue]:
        """Seats by the engine's name, and turns by the name with ``"-turns"`` behind it."""
        turns = {f"{name}-turns": queue for name, queue in self._turns.items()}
        return self._seats | turns

    async def speak(
        self, plan: SpeechPlan, caller: RequestContext
    ) -> AsyncGenerator[SpeechEvent, None]:
        """Speaks; closing it stops the engine at its next piece.

        Yields:
            The info, then marks and encoded audio, then the end, each with the usage so
            far; and a step of ``None`` where a sentence is begun.

        Raises:
            Overloaded: No seat is free, and too many wait for one.
            DeadlineExceeded: None will be free before the caller's deadline.
            Unavailable: The engine can't be used.
        """
        engine = plan.engine
        meter = SpeechMeter(
            model=plan.job.model,
            model_digest=plan.model_digest,
            engine=engine.name,
            sample_rate=plan.sample_rate,
            clock=self._clock,
        )
        async with self.seat(engine, caller, cost=plan.cost, model=plan.job.model) as ticket:
            meter.waited(ticket.queue_time)
            ahead = Lookahead(
                plan,
                turn=lambda line: self._turn(engine, caller, line),
                meter=meter,
                begun=lambda: report_usage(meter.usage()),
            )
            # The encoder is opened while the engine is at work.
            async with ahead, aclosing(_steps(plan, ahead, meter)) as steps:
                told = -1
                async for step in steps:
                    usage = meter.usage()
                    if step is not None or usage.characters > told:
                        told = usage.characters
                        yield SpeechEvent(step=step, usage=usage)

    @asynccontextmanager
    async def seat(
        self, engine: SpeechEngine, caller: RequestContext, *, cost: float, model: str = ""
    ) -> AsyncIterator[Ticket]:
        """Waits for a seat at an engine and holds it; `cost` in characters."""
        async with self._seats[engine.name].enter(
            tenant=caller.tenant,
            weight=caller.weight,
            cost=cost,
            deadline=caller.deadline,
            model=model,
        ) as ticket:
            yield ticket

    @asynccontextmanager
    async def turn(
        self, engine: SpeechEngine, caller: RequestContext, *, cost: float
    ) -> AsyncIterator[Ticket]:
        """Waits for the engine and holds it; only for who has a seat."""
        async with self._turns[engine.name].enter(
            tenant=caller.tenant, weight=caller.weight, cost=cost
        ) as ticket:
            yield ticket

    @asynccontextmanager
    async def _turn(
        self, engine: SpeechEngine, caller: RequestContext, line: Line
    ) -> AsyncIterator[Ticket]:
        cost = float(max(1, len(line.request.text)))
        async with self.turn(engine, caller, cost=cost) as ticket:
            yield ticket


async def _steps(
    plan: SpeechPlan, ahead: Lookahead, meter: SpeechMeter
) -> AsyncGenerator[Step | None, None]:
    """Turns what the engine gives into what the caller gets."""
    rate = plan.sample_rate
    with await SpeechOutput.open(plan.encoding, sample_rate=rate, meter=meter) as output:
        while (item := await ahead.next()) is not None:
            if isinstance(item, Begun):
                utterance = plan.lines[item.index].utterance
                yield plan.info if item.index == 0 else None
                for part in output.silence(utterance.pause_before):
                    for chunk in await output.write(part):
                        yield chunk
                if plan.job.sentence_marks:
                    yield _mark(item.index, utterance, meter)
                output.begin(plan.lines[item.index].stretch)
            elif isinstance(item, Ended):
                for chunk in await output.end():
                    yield chunk
                for part in output.silence(plan.lines[item.index].utterance.pause_after):
                    for chunk in await output.write(part):
                        yield chunk
            else:
                for part in output.slices(item):
                    for chunk in await output.write(part):
                        yield chunk
        for chunk in await output.finish():
            yield chunk
        yield output.summary


def _mark(index: int, utterance: Utterance, meter: SpeechMeter) -> SentenceMark:
    return SentenceMark(
        index=index,
        start_character=utterance.start,
        end_character=utterance.end,
        start=meter.position,
    )
