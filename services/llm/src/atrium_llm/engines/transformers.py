"""The `transformers` engine: any causal model of the library, batched continuously, and
embedding models; on a CPU or a GPU. The quick start runs on it.

The registry makes it with the catalogue entries that name it. Its parts are in
`engines/hf`; why it has a loop of its own stands in `engines/hf/loop.py`.

`output_tokens` counts what was generated, the end-of-text token included, as OpenAI's
`completion_tokens` does; a grammar that leaves nothing but the end ends without one.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import torch

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability, ModelInfo
from atrium_common.engine_models import find_model
from atrium_common.engine_options import read_options
from atrium_common.errors import InvalidArgument, Unimplemented
from atrium_common.lifecycle import Lifecycle, ModelHandling, ModelHost, device_bytes
from atrium_common.telemetry.tally import ROWS, Tally
from atrium_common.weights import WeightStore
from atrium_common.work import Batching
from atrium_llm.domain import (
    ChatInput,
    EmbeddingJob,
    EmbeddingResult,
    GenerationEvent,
    GenerationJob,
    PromptInput,
    RerankJob,
    RerankResult,
)
from atrium_llm.engines.hf.embedder import Embedder
from atrium_llm.engines.hf.generator import ENGINE, Generator
from atrium_llm.engines.hf.options import EmbedderOptions, GeneratorOptions
from atrium_llm.weights import model_folder

_EMBEDS = {Capability.EMBEDDING, Capability.RERANK}


class TransformersEngine:
    """Runs catalogue entries with transformers; see `TextGenerationEngine`.

    Attributes:
        scheduling: As many requests at once as the largest model has slots.
        batches: Choices that shared each step, by model.
    """

    name = ENGINE

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        store: WeightStore,
        lifecycle: Lifecycle | None = None,
        device: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Reads the entries' options; loads nothing.

        Args:
            entries: The models, in catalogue order.
            store: Where their files are.
            lifecycle: Shared by the process's engines; see `ModelHost`.
            device: Where models run whose entry does not say, e.g. ``"cuda"``; default
                is a GPU if there is one.
            clock: Tells the time, aware UTC.

        Raises:
            CatalogueError: An option is unknown or out of its range.
        """
        self._store = store
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.batches: defaultdict[str, Tally] = defaultdict(lambda: Tally(ROWS))
        self._options = {entry.id: _options(entry) for entry in entries}
        self._sizes: dict[str, tuple[int, int]] = {}
        handling = ModelHandling(
            open_model=self._open,
            warm_up=_verify,
            close_model=_close,
            failure=lambda loaded: loaded.failure,
            measure=lambda entry: device_bytes(str(self._device_of(entry))),
        )
        self._host: ModelHost[Generator | Embedder] = ModelHost(
            ENGINE, entries, handling, lifecycle=lifecycle, now=clock
        )
        slots = [o.slots for o in self._options.values() if isinstance(o, GeneratorOptions)]
        self.scheduling = Batching(slots=max(slots, default=16))

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
        """Unloads every model. May be called twice."""
        await self._host.close()

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order, with their present state."""
        return [self._sized(info) for info in self._host.models()]

    async def verify(self, model: str) -> None:
        """Runs a one-token pass; raises if the model can't answer."""
        await self._host.verify(model)

    async def generate(self, job: GenerationJob) -> AsyncGenerator[GenerationEvent, None]:
        """Streams a generation. Closing the iterator stops it within one step."""
        async with self._generator(job.model) as model, aclosing(model.generate(job)) as events:
            async for event in events:
                yield event

    async def embed(self, job: EmbeddingJob) -> EmbeddingResult:
        """Embeds texts."""
        async with self._embedder(job.model, "embed") as model:
            return await model.embed(job)

    async def rerank(self, job: RerankJob) -> RerankResult:
        """Orders documents by the cosine of their vectors and the query's."""
        async with self._embedder(job.model, "rerank") as model:
            return await model.rerank(job)

    async def count_tokens(self, model: str, prompt: PromptInput) -> int:
        """Counts tokens exactly as `generate` (or `embed`) would charge them as input."""
        async with self._host.use(model) as loaded:
            if isinstance(loaded, Generator):
                return await loaded.count_tokens(prompt)
            if isinstance(prompt, ChatInput):
                raise InvalidArgument("input.chat needs a chat model.", field="input.chat")
            return await loaded.count_tokens(prompt)

    def running(self, model: str) -> int:
        """Counts the choices of a model that hold a slot or wait for one."""
        loaded = self._host.peek(model)
        return loaded.running if isinstance(loaded, Generator) else 0

    async def _open(self, entry: ModelEntry) -> Generator | Embedder:
        loaded = await asyncio.to_thread(self._make, entry, asyncio.get_running_loop())
        self._sizes[entry.id] = (loaded.context_length, getattr(loaded, "dimensions", 0))
        return loaded

    def _make(self, entry: ModelEntry, events: asyncio.AbstractEventLoop) -> Generator | Embedder:
        options = self._options[entry.id]
        device = self._device_of(entry)
        folder = model_folder(self._store, entry)
        if isinstance(options, EmbedderOptions):
            return Embedder(entry, options, folder, device=device)
        return Generator(
            entry, options, folder, device=device, events=events, batches=self.batches[entry.id]
        )

    def _device_of(self, entry: ModelEntry) -> torch.device:
        return torch.device(self._options[entry.id].device or self._device)

    def _sized(self, info: ModelInfo) -> ModelInfo:
        """Adds what is known of a model once it has been loaded."""
        if info.id not in self._sizes:
            return info
        window, dimensions = self._sizes[info.id]
        return replace(info, context_length=window, embedding_dimensions=dimensions)

    @asynccontextmanager
    async def _generator(self, model: str) -> AsyncIterator[Generator]:
        if isinstance(find_model(self._options, model), EmbedderOptions):
            raise Unimplemented(f"The model {model!r} does not generate text.")
        async with self._host.use(model) as loaded:
            yield cast("Generator", loaded)

    @asynccontextmanager
    async def _embedder(self, model: str, what: str) -> AsyncIterator[Embedder]:
        if isinstance(find_model(self._options, model), GeneratorOptions):
            raise Unimplemented(f"The model {model!r} does not {what}.")
        async with self._host.use(model) as loaded:
            yield cast("Embedder", loaded)


async def _verify(entry: ModelEntry, loaded: Generator | Embedder) -> None:
    del entry
    await loaded.verify()


async def _close(entry: ModelEntry, loaded: Generator | Embedder) -> None:
    del entry
    await asyncio.to_thread(loaded.close)


def _options(entry: ModelEntry) -> GeneratorOptions | EmbedderOptions:
    if set(entry.capabilities) & _EMBEDS:
        return read_options(EmbedderOptions, entry)
    return read_options(GeneratorOptions, entry)
