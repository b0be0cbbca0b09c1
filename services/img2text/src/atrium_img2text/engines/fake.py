"""An engine without a model that sees and reads, for contract, load and gateway tests only.

It answers at once, or at a set pace, always the same for the same job; it counts exactly
and honours every field. What one of its models can do is what its entry says. Named
``fake`` in the catalogue, so that nobody takes its answers for a model's.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability, ModelInfo
from atrium_common.engine_models import find_model
from atrium_common.engine_options import read_options
from atrium_common.errors import InvalidArgument, MediaError, NotFound
from atrium_common.lifecycle import Lifecycle, weightless_host
from atrium_common.weights import WeightStore
from atrium_common.work import Batching
from atrium_img2text.domain import (
    ANSWER_TOKENS,
    CAPTION_TOKENS,
    AnswerEvent,
    Caption,
    Counts,
    DescriptionEvent,
    DescriptionJob,
    DescriptionOrder,
    FinishReason,
    QuestionJob,
    QuestionOrder,
)
from atrium_img2text.engines.fake_options import FakeOptions
from atrium_img2text.engines.fake_text import (
    answer_words,
    caption_words,
    description_tokens,
    page_read,
    question_tokens,
    shown,
)
from atrium_img2text.reading import Page, PageImage, ReadingOrder

DEFAULT_CONTEXT = 8192


class FakeEngine:
    """Meets `VisionEngine` and `ReadingEngine` without a model.

    Attributes:
        started: Jobs and pages that were begun.
        running: Jobs and pages that are open now; a test sees here that a slot is free.
        steps: Steps and pages made; a test sees here that work stopped.
    """

    name = "fake"

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        store: WeightStore | None = None,
        lifecycle: Lifecycle | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Takes the catalogue's entries; `store` is unused, for there are no weights.

        Raises:
            CatalogueError: An option of a model does not hold.
        """
        del store
        self._entries = {entry.id: entry for entry in entries}
        self._options = {entry.id: read_options(FakeOptions, entry) for entry in entries}
        self._host = weightless_host(self.name, entries, lifecycle=lifecycle, now=now)
        self.scheduling = Batching(slots=max(option.slots for option in self._options.values()))
        self.started = 0
        self.running = 0
        self.steps = 0

    async def load(self) -> None:
        """Loads the models that are to be ready at start; see `ModelHost.load`."""
        await self._host.load()

    async def load_model(self, model: str) -> None:
        """Loads and verifies one model; see `ModelHost.load_model`."""
        await self._host.load_model(model)

    async def unload_model(self, model: str) -> None:
        """Frees a model's memory; see `ModelHost.unload_model`."""
        await self._host.unload_model(model)

    async def close(self) -> None:
        """Makes every model unavailable."""
        await self._host.close()

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models."""
        return tuple(
            replace(info, context_length=self._window(self._entries[info.id]))
            for info in self._host.models()
        )

    async def verify(self, model: str) -> None:
        """Succeeds for a model that is loaded."""
        await self._host.verify(model)

    def check_description(self, order: DescriptionOrder) -> None:
        """Refuses only what does not fit into the context."""
        entry = self._able(order.model, Capability.IMAGE_TO_TEXT)
        self._check_window(entry, description_tokens(order), "prefix")

    def check_question(self, order: QuestionOrder) -> None:
        """Refuses only what does not fit into the context."""
        entry = self._able(order.model, Capability.IMAGE_TO_TEXT)
        self._check_window(entry, question_tokens(order), "question")

    def check_reading(self, order: ReadingOrder) -> None:
        """Refuses languages and layouts that its options do not name."""
        options = self._options[self._able(order.model, Capability.OCR).id]
        for place, language in enumerate(order.languages):
            if language not in options.languages:
                raise InvalidArgument(
                    f"The language {language!r} is not installed.", field=f"languages[{place}]"
                )
        if order.layout not in options.layouts:
            raise InvalidArgument(
                f"The model {order.model!r} does not offer the layout {order.layout}.",
                field="layout",
            )

    def languages(self, model: str) -> Sequence[str]:
        """Returns what its options name."""
        self._offering(model, Capability.OCR)
        return tuple(sorted(self._options[model].languages))

    async def describe(self, job: DescriptionJob) -> AsyncGenerator[DescriptionEvent, None]:
        """Says size and mean colour of the picture, and how it was asked."""
        order = job.order
        self.check_description(order)
        read = description_tokens(order)
        room = self._room(order.model, order.sampling.max_tokens or CAPTION_TOKENS, read)
        async with self._used(order.model):
            picture = await asyncio.to_thread(shown, job.pixels)
            texts = [caption_words(order, picture, index)[:room] for index in range(order.n)]
            captions = [
                Caption(index=index, text=" ".join(words), average_logprob=-0.1 * (index + 1))
                for index, words in enumerate(texts)
            ]
            longest = max(map(len, texts))
            async with aclosing(self._paced(order.model, read, texts)) as steps:
                async for made, counts in steps:
                    yield DescriptionEvent(
                        counts=counts, captions=captions if made == longest else ()
                    )

    async def answer(self, job: QuestionJob) -> AsyncGenerator[AnswerEvent, None]:
        """Repeats the question word by word, then says what the picture is."""
        order = job.order
        self.check_question(order)
        read = question_tokens(order)
        room = self._room(order.model, order.sampling.max_tokens or ANSWER_TOKENS, read)
        async with self._used(order.model):
            picture = await asyncio.to_thread(shown, job.pixels)
            whole = answer_words(order, picture)
            words = whole[:room]
            reason = FinishReason.STOP if len(whole) <= room else FinishReason.LENGTH
            before = 0
            async with aclosing(self._paced(order.model, read, [words])) as steps:
                async for made, counts in steps:
                    text = "".join(f" {word}" for word in words[before:made])
                    yield AnswerEvent(
                        counts=counts,
                        text=text if before else text[1:],
                        finish_reason=reason if made == len(words) else None,
                    )
                    before = made

    async def read(self, page: PageImage, order: ReadingOrder) -> Page:
        """Reads a text that says the page's number and size."""
        self.check_reading(order)
        options = self._options[order.model]
        async with self._used(order.model):
            await asyncio.sleep(min(options.seconds_per_page, options.page_limit_seconds))
            if options.seconds_per_page > options.page_limit_seconds:
                raise MediaError(
                    f"Page {page.number} took too long to read.", reason="PAGE_TIMEOUT"
                )
            self.steps += 1
            return page_read(page, order, options.languages, options.seconds_per_page)

    async def _paced(
        self, model: str, read: int, texts: Sequence[Sequence[str]]
    ) -> AsyncGenerator[tuple[int, Counts], None]:
        """Gives how many words there are of each text, and what is counted: first 0, then all."""
        options = self._options[model]
        spent = options.prefill_seconds
        await asyncio.sleep(spent)
        yield 0, Counts(input_tokens=read, inference=timedelta(seconds=spent))
        longest = max(map(len, texts))
        made = 0
        while made < longest:
            # Also at full speed, so that one long answer does not hold the loop.
            await asyncio.sleep(options.seconds_per_step)
            spent += options.seconds_per_step
            self.steps += 1
            made = min(made + options.tokens_per_step, longest)
            written = sum(min(len(words), made) for words in texts)
            inference = timedelta(seconds=spent)
            yield made, Counts(input_tokens=read, output_tokens=written, inference=inference)

    @asynccontextmanager
    async def _used(self, model: str) -> AsyncIterator[None]:
        async with self._host.use(model):
            self.started += 1
            self.running += 1
            try:
                yield
            finally:
                self.running -= 1

    def _able(self, model: str, capability: Capability) -> ModelEntry:
        entry = self._offering(model, capability)
        self._host.check(model)
        return entry

    def _offering(self, model: str, capability: Capability) -> ModelEntry:
        entry = find_model(self._entries, model)
        if capability not in entry.capabilities:
            raise NotFound(
                f"The model {model!r} does not offer {capability}.",
                reason="MODEL_NOT_FOUND",
                field="model",
            )
        return entry

    def _window(self, entry: ModelEntry) -> int:
        if Capability.IMAGE_TO_TEXT not in entry.capabilities:
            return 0
        return entry.context_length or DEFAULT_CONTEXT

    def _check_window(self, entry: ModelEntry, read: int, field: str) -> None:
        window = self._window(entry)
        if read >= window:
            raise InvalidArgument(
                f"Picture and text take {read} tokens; the model's window is {window}.",
                reason="CONTEXT_LENGTH_EXCEEDED",
                field=field,
            )

    def _room(self, model: str, max_tokens: int, read: int) -> int:
        return min(max_tokens, self._window(self._entries[model]) - read)
