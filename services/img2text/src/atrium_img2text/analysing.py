"""Describes, asks and reads one upload at the same time; results come as each is ready.

The servicer makes one `Analysis` per request.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import replace
from functools import partial

from atrium_common.context import RequestContext, UsageReport
from atrium_common.domain import Usage
from atrium_common.images import size_of
from atrium_common.intake import HeldPixels
from atrium_img2text.documents import Document
from atrium_img2text.domain import (
    AnalysisOrder,
    Caption,
    DescriptionJob,
    DescriptionOrder,
    FinishReason,
    QuestionJob,
    QuestionOrder,
)
from atrium_img2text.extracting import Extracting
from atrium_img2text.pages import ReadingJob
from atrium_img2text.paths import inside
from atrium_img2text.reading import PageImage, ReadingOrder
from atrium_img2text.seeing import Seeing
from atrium_img2text.steps import Analysed, AnalysisStep, Answered, summed

_UNREAD = 8
"""Results that wait for a caller who is slow; then the parts wait, too."""

_Parts = Iterable[Coroutine[None, None, None]]


class Analysis:
    """One upload that is looked at in several ways."""

    def __init__(
        self,
        order: AnalysisOrder,
        *,
        seeing: Seeing,
        extracting: Extracting,
        held: HeldPixels,
        label: Usage,
        caller: RequestContext,
        report: UsageReport,
    ) -> None:
        """Starts nothing.

        Args:
            order: What to do.
            label: Under which model all that is consumed is told, besides by model.
            seeing: Who describes and answers.
            extracting: Who reads.
            held: Counts the picture while it is looked at.
            caller: Whose request it is.
            report: Hears of what was consumed, by all parts together and by model.
        """
        self._order = order
        self._label = label
        self._seeing = seeing
        self._extracting = extracting
        self._held = held
        self._caller = caller
        self._report = report
        self._usages: dict[int, Usage] = {}
        self._seen_by: int | None = None
        self._unread: deque[Analysed] = deque()
        self._room = asyncio.Semaphore(_UNREAD)
        self._news = asyncio.Event()
        self._told: Sequence[Usage] = ()

    @property
    def usage_by_model(self) -> Sequence[Usage]:
        """What was consumed so far, one entry per model, in the order of the parts."""
        by_model: dict[str, list[Usage]] = {}
        for _, usage in sorted(self._usages.items()):
            by_model.setdefault(usage.model, []).append(usage)
        return tuple(summed(parts[0], parts) for parts in by_model.values())

    async def run(self, document: Document) -> AsyncGenerator[AnalysisStep, None]:
        """Does all parts; closing it returns once they have ended.

        Args:
            document: The upload, opened.

        Yields:
            Results as each is ready, those of a part in their order; steps without a
            result where only more was consumed.

        Raises:
            AtriumError: The first that a part raises; the others have ended then.
        """
        with ExitStack() as stack:
            picture = None
            if self._order.description is not None or self._order.questions:
                picture = await document.first_picture()
                hold = stack.enter_context(self._held.holding(self._caller.tenant))
                hold(size_of(picture.pixels).pixels)
            work = asyncio.create_task(_together(self._parts(document, picture)))
            work.add_done_callback(lambda _: self._news.set())
            try:
                ended = False
                while not ended:
                    await self._news.wait()
                    self._news.clear()
                    ended = work.done()
                    while self._unread:
                        self._room.release()
                        yield self._step(self._unread.popleft())
                    if self.usage_by_model != self._told:
                        yield self._step(None)
                work.result()
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    def _parts(self, document: Document, picture: PageImage | None) -> _Parts:
        order, number = self._order, 0
        if picture is not None:
            if order.description is not None:
                yield self._describe(order.description, picture)
            for number, question in enumerate(order.questions, 1):
                yield self._answer(number, question, picture)
        if order.extraction is not None:
            yield self._extract(number + 1, order.extraction, document, picture)

    async def _describe(self, order: DescriptionOrder, picture: PageImage) -> None:
        job = DescriptionJob(order=order, pixels=picture.pixels)
        captions: list[Caption] = []
        with inside("description"):
            steps = self._seeing.describe(job, self._caller, partial(self._note, 0))
            async with aclosing(steps):
                async for step in steps:
                    captions += step.result.captions
        for caption in captions:
            await self._give(caption)

    async def _answer(self, number: int, order: QuestionOrder, picture: PageImage) -> None:
        job = QuestionJob(order=order, pixels=picture.pixels)
        texts, reason = [], FinishReason.STOP
        with inside(f"questions[{number - 1}]"):
            steps = self._seeing.answer(job, self._caller, partial(self._note, number))
            async with aclosing(steps):
                async for step in steps:
                    texts.append(step.result.text)
                    reason = step.result.finish_reason or reason
        await self._give(Answered(number - 1, "".join(texts), reason))

    async def _extract(
        self, number: int, order: ReadingOrder, document: Document, picture: PageImage | None
    ) -> None:
        # A picture is the same at any resolution, so it is decoded once.
        shared = order.first_page == 1 and document.info.content_type.startswith("image/")
        job = ReadingJob(
            order=order,
            document=document,
            caller=self._caller,
            report=partial(self._note, number),
            first=picture if shared else None,
        )
        with inside("extraction"):
            steps = self._extracting.read(job)
            async with aclosing(steps):
                async for step in steps:
                    if step.result is not None:
                        await self._give(step.result)

    def _note(self, part: int, usage: Usage) -> None:
        """Remembers what a part consumed; the one picture counts for who saw it first."""
        if usage.images:
            if self._seen_by is None:
                self._seen_by = part
            if self._seen_by != part:
                usage = replace(usage, images=0)
        self._usages[part] = usage
        by_model = self.usage_by_model
        self._report(summed(self._label, by_model), by_model)
        self._news.set()

    async def _give(self, result: Analysed) -> None:
        await self._room.acquire()
        self._unread.append(result)
        self._news.set()

    def _step(self, result: Analysed | None) -> AnalysisStep:
        self._told = self.usage_by_model
        return AnalysisStep(result, summed(self._label, self._told), self._told)


async def _together(parts: _Parts) -> None:
    """Does all parts at once; where one fails, the others are ended before it raises."""
    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
