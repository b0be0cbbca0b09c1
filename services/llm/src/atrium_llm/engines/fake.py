"""A text engine without a model, for contract tests, load tests and benchmarks only.

It answers at once, or at a set pace, always the same text for the same job; it counts
exactly and honours every field. Named ``fake`` in the catalogue, so that nobody takes
its answers for a model's.
"""

import asyncio
import hashlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import Field

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability, ModelInfo, Usage
from atrium_common.engine_options import EngineOptions, read_options
from atrium_common.errors import InvalidArgument, Unimplemented
from atrium_common.lifecycle import Lifecycle, weightless_host
from atrium_common.weights import WeightStore
from atrium_common.work import Batching
from atrium_llm.domain import (
    ChatInput,
    ChoiceDelta,
    EmbeddingJob,
    EmbeddingResult,
    GenerationEvent,
    GenerationJob,
    ImagePart,
    PromptInput,
    RankedDocument,
    RerankJob,
    RerankResult,
    TextInput,
    TokenInput,
)
from atrium_llm.engines.fake_text import Plan, echoed, logprobs, plan, prompt_tokens

DEFAULT_CONTEXT = 8192
DEFAULT_DIMENSIONS = 384


class FakeOptions(EngineOptions):
    """Options of a fake model in the catalogue."""

    reply_tokens: int = Field(default=16, ge=1)
    """Length of a reply that nothing cuts."""

    tokens_per_step: int = Field(default=8, ge=1)
    """Tokens that one event carries for each choice."""

    tokens_per_second: float | None = Field(default=None, gt=0)
    """Pace of each choice; unset answers as fast as it can."""

    prefill_seconds: float = Field(default=0.0, ge=0)
    """Time before the first event."""

    slots: int = Field(default=64, ge=1)
    """Generations at once; the largest of the engine's models counts."""


class FakeEngine:
    """Meets `TextGenerationEngine` without a model.

    Attributes:
        running: Generations that are open now; a test sees here that a slot is free.
        steps: Steps made since the engine began; a test sees here that work stopped.
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
        """Takes the catalogue's entries; there are no weights to find."""
        del store
        self._options = {entry.id: read_options(FakeOptions, entry) for entry in entries}
        self._host = weightless_host(self.name, entries, lifecycle=lifecycle, now=now)
        self.scheduling = Batching(slots=max(option.slots for option in self._options.values()))
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
        return [
            replace(
                info,
                context_length=info.context_length or DEFAULT_CONTEXT,
                embedding_dimensions=self._dimensions(self._host.entry(info.id)),
            )
            for info in self._host.models()
        ]

    async def verify(self, model: str) -> None:
        """Succeeds for a model that is loaded."""
        await self._host.verify(model)

    async def generate(self, job: GenerationJob) -> AsyncGenerator[GenerationEvent, None]:
        """Streams the planned reply."""
        async with self._ready(job.model, Capability.CHAT, Capability.COMPLETION) as entry:
            options = self._options[job.model]
            read, plans = self._plan(job, entry, options)
            pause = (
                options.tokens_per_step / options.tokens_per_second
                if options.tokens_per_second
                else 0.0
            )
            self.running += 1
            try:
                if options.prefill_seconds:
                    await asyncio.sleep(options.prefill_seconds)
                yield GenerationEvent(usage=self._usage(entry, read, 0))
                if job.echo:
                    text = echoed(job.input)
                    deltas = [ChoiceDelta(index=index, text=text) for index in range(len(plans))]
                    yield GenerationEvent(deltas=deltas, usage=self._usage(entry, read, 0))
                longest = max(len(planned.pieces) for planned in plans)
                for start in range(0, max(longest, 1), options.tokens_per_step):
                    # Also at full speed, so that one long reply does not hold the loop.
                    await asyncio.sleep(pause)
                    self.steps += 1
                    end = start + options.tokens_per_step
                    deltas = [
                        delta
                        for index, planned in enumerate(plans)
                        if (delta := _delta(index, planned, start, end, job.sampling.top_logprobs))
                    ]
                    written = sum(min(len(planned.pieces), end) for planned in plans)
                    yield GenerationEvent(deltas=deltas, usage=self._usage(entry, read, written))
            finally:
                self.running -= 1

    def _plan(
        self, job: GenerationJob, entry: ModelEntry, options: FakeOptions
    ) -> tuple[int, list[Plan]]:
        if isinstance(job.input, ChatInput) and Capability.IMAGE_TO_TEXT not in entry.capabilities:
            _refuse_images(job.input)
        read = prompt_tokens(job.input)
        window = entry.context_length or DEFAULT_CONTEXT
        if read >= window:
            raise InvalidArgument(
                f"The prompt has {read} tokens; the model's window is {window}.",
                reason="CONTEXT_LENGTH_EXCEEDED",
                field=_input_field(job.input),
            )
        return read, [
            plan(job, index, reply_tokens=options.reply_tokens, room=window - read)
            for index in range(job.sampling.n)
        ]

    async def embed(self, job: EmbeddingJob) -> EmbeddingResult:
        """Makes unit vectors out of digests: equal texts have equal vectors."""
        async with self._ready(job.model, Capability.EMBEDDING) as entry:
            full = self._dimensions(entry)
            wanted = job.dimensions or full
            if wanted > full:
                raise InvalidArgument(f"dimensions must be at most {full}.", field="dimensions")
            window = entry.context_length or DEFAULT_CONTEXT
            total = 0
            for index, item in enumerate(job.inputs):
                count = prompt_tokens(item)
                if count > window and not job.truncate:
                    raise InvalidArgument(
                        f"inputs[{index}] has {count} tokens; the model's window is {window}.",
                        reason="CONTEXT_LENGTH_EXCEEDED",
                        field=f"inputs[{index}]",
                    )
                total += min(count, window)
            vectors = [_vector(item, wanted) for item in job.inputs]
            return EmbeddingResult(vectors=vectors, usage=self._usage(entry, total, 0))

    async def rerank(self, job: RerankJob) -> RerankResult:
        """Scores a document by the share of the query's words that it has."""
        async with self._ready(job.model, Capability.RERANK) as entry:
            query = set(job.query.lower().split())
            scores = [
                RankedDocument(
                    index, len(query & set(document.lower().split())) / (len(query) or 1)
                )
                for index, document in enumerate(job.documents)
            ]
            scores.sort(key=lambda result: -result.score)
            read = sum(len(query) + len(document.split()) for document in job.documents)
            return RerankResult(results=scores[: job.top_n], usage=self._usage(entry, read, 0))

    async def count_tokens(self, model: str, prompt: PromptInput) -> int:
        """Counts words."""
        async with self._ready(model):
            return prompt_tokens(prompt)

    @asynccontextmanager
    async def _ready(self, model: str, *capabilities: Capability) -> AsyncIterator[ModelEntry]:
        entry = self._host.entry(model)
        if capabilities and not set(capabilities) & set(entry.capabilities):
            raise Unimplemented(f"The model {model!r} does not offer {capabilities[0]}.")
        async with self._host.use(model):
            yield entry

    def _dimensions(self, entry: ModelEntry) -> int:
        if Capability.EMBEDDING not in entry.capabilities:
            return 0
        return entry.embedding_dimensions or DEFAULT_DIMENSIONS

    def _usage(self, entry: ModelEntry, read: int, written: int) -> Usage:
        return Usage(
            model=entry.id,
            model_digest=entry.digest,
            engine=self.name,
            input_tokens=read,
            output_tokens=written,
        )


def _delta(index: int, planned: Plan, start: int, end: int, top: int | None) -> ChoiceDelta | None:
    if start >= len(planned.pieces) and start > 0:
        return None
    pieces = planned.pieces[start:end]
    shown = sum(map(len, planned.pieces[:start])) if start else 0
    text = "".join(pieces)[: max(0, planned.visible - shown)]
    last = end >= len(planned.pieces)
    return ChoiceDelta(
        index=index,
        text=text,
        tool_calls=planned.tool_calls if last else (),
        logprobs=() if top is None else logprobs(pieces, top),
        finish_reason=planned.finish_reason if last else None,
        stop=planned.stop if last else None,
    )


def _vector(item: TextInput | TokenInput, dimensions: int) -> list[float]:
    seed = item.text.encode() if isinstance(item, TextInput) else repr(tuple(item.ids)).encode()
    digest = hashlib.shake_128(seed).digest(2 * dimensions)
    values = memoryview(digest).cast("h").tolist()
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / length for value in values]


def _refuse_images(chat: ChatInput) -> None:
    for place, message in enumerate(chat.messages):
        for index, part in enumerate(message.content):
            if isinstance(part, ImagePart):
                field = f"job.chat.messages[{place}].content[{index}].image"
                raise InvalidArgument("This model does not see images.", field=field)


def _input_field(prompt: PromptInput) -> str:
    if isinstance(prompt, ChatInput):
        return "job.chat.messages"
    return "job.prompt" if isinstance(prompt, TextInput) else "job.prompt_ids"
