"""One loaded model: from a job to its events. `engine.py` makes one for each entry."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from atrium_common.telemetry.tally import Tally
from atrium_common.work import DeviceThread
from atrium_img2text.domain import (
    ANSWER_TOKENS,
    CAPTION_TOKENS,
    AnswerEvent,
    Caption,
    DescriptionEvent,
    DescriptionJob,
    DescriptionOrder,
    QuestionJob,
    QuestionOrder,
)
from atrium_img2text.engines.captioning.loop import CaptioningLoop
from atrium_img2text.engines.captioning.model import CaptioningModel, Prepared
from atrium_img2text.engines.captioning.plan import PROBE, GenerationPlan, plan_generation
from atrium_img2text.engines.captioning.request import Progress, Request


class Captioner:
    """Describes and answers with one model. Its methods are called on one event loop.

    Attributes:
        failure: Why the generating thread died; ``""`` while it lives.
    """

    def __init__(
        self,
        model: CaptioningModel,
        *,
        probe: Prepared,
        name: str,
        max_batch: int,
        threads: int,
        clock: Callable[[], float] = time.monotonic,
        batches: Tally | None = None,
    ) -> None:
        """Starts the threads: one reads pictures and prompts, one generates.

        Args:
            model: From now on used by these threads; only `check_...` by others.
            probe: A small picture, to ask whether the model still works.
            name: Catalogue id; shown in stack dumps.
            max_batch: Most rows of a batch.
            threads: CPU threads that one operation may use.
            clock: Monotonic seconds.
            batches: Counts the rows of each batch.
        """
        self.failure = ""
        self._model = model
        self._probe = probe
        self._preparing = DeviceThread(f"prepare-{name}")
        self._loop = CaptioningLoop(
            model,
            probe=probe,
            max_batch=max_batch,
            threads=threads,
            events=asyncio.get_running_loop(),
            on_failure=self._fail,
            name=f"captions-{name}",
            clock=clock,
            batches=batches,
        )
        self._loop.start()

    @property
    def context_length(self) -> int:
        """Most tokens that the model reads and writes."""
        return self._model.context_length

    @property
    def running(self) -> int:
        """Requests that hold a row or wait for one."""
        return self._loop.running

    @property
    def waiting(self) -> int:
        """Rows that no batch has taken."""
        return self._loop.waiting

    @property
    def batches(self) -> list[int]:
        """Rows of the latest batches, the newest last; for tests and measurements."""
        return list(self._loop.batches)

    def close(self) -> None:
        """Stops the threads; what still runs fails as `Unavailable`. Blocks for a step."""
        self._loop.stop(timeout=30.0)
        self._preparing.close()

    def _fail(self, detail: str) -> None:
        self.failure = detail

    def check_description(self, order: DescriptionOrder) -> None:
        """Refuses what the model can't do; `field` names it."""
        self._model.check_description(order)
        self._description_plan(order)

    def check_question(self, order: QuestionOrder) -> None:
        """Refuses what the model can't do; `field` names it."""
        self._model.check_question(order)
        self._question_plan(order)

    async def verify(self) -> None:
        """Generates one token, among what runs now.

        Raises:
            AtriumError: It can't.
        """
        async with aclosing(self._run(self._probe, PROBE)) as news:
            async for _ in news:
                pass

    async def describe(self, job: DescriptionJob) -> AsyncGenerator[DescriptionEvent, None]:
        """Describes a picture; see `VisionEngine.describe`."""
        plan = self._description_plan(job.order)
        prepared = await self._preparing.call(
            self._model.prepare_description, job.order, job.pixels
        )
        async with aclosing(self._run(prepared, plan)) as news:
            async for progress in news:
                captions = [
                    Caption(index=index, text=made.text, average_logprob=made.average_logprob)
                    for index, made in enumerate(progress.candidates)
                ]
                yield DescriptionEvent(counts=progress.counts, captions=captions)

    async def answer(self, job: QuestionJob) -> AsyncGenerator[AnswerEvent, None]:
        """Answers a question; see `VisionEngine.answer`."""
        plan = self._question_plan(job.order)
        prepared = await self._preparing.call(self._model.prepare_question, job.order, job.pixels)
        async with aclosing(self._run(prepared, plan)) as news:
            async for progress in news:
                if not progress.candidates:
                    yield AnswerEvent(counts=progress.counts, text=progress.text)
                    continue
                best = progress.candidates[0]
                text = progress.text if plan.beams == 1 else best.text
                yield AnswerEvent(
                    counts=progress.counts, text=text, finish_reason=best.finish_reason
                )

    def _description_plan(self, order: DescriptionOrder) -> GenerationPlan:
        return plan_generation(
            order.sampling, self._model.defaults, candidates=order.n, max_tokens=CAPTION_TOKENS
        )

    def _question_plan(self, order: QuestionOrder) -> GenerationPlan:
        return plan_generation(
            order.sampling, self._model.defaults, candidates=1, max_tokens=ANSWER_TOKENS
        )

    async def _run(
        self, prepared: Prepared, plan: GenerationPlan
    ) -> AsyncGenerator[Progress, None]:
        """Runs a request; closing returns when the loop has let go of it.

        Raises:
            Unavailable: The model was stopped or has failed.
            Overloaded: There is not enough memory even for this alone.
            InternalError: The generation failed.
        """
        request = Request.of(prepared, plan, self._model.decode)
        self._loop.submit(request)
        try:
            while (progress := await request.mailbox.get()) is not None:
                yield progress
        finally:
            if not request.mailbox.ended:
                self._loop.cancel(request)
                await request.mailbox.drained()
