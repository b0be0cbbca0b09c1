"""The `transformers` engine: any causal model of the library, batched continuously, and
embedding models; on a CPU or a GPU. The quick start runs on it.

The registry makes it with the catalogue entries that name it. Its parts are in
`engines/hf`; why it has a loop of its own stands in `engines/hf/loop.py`.

`output_tokens` counts what was generated, the end-of-text token included, as OpenAI's
`completion_tokens` does; a grammar that leaves nothing but the end ends without one.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import torch

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability, ModelInfo, ModelState
from atrium_common.engine_models import find_model, model_info
from atrium_common.engine_options import read_options
from atrium_common.errors import InvalidArgument, Unavailable, Unimplemented
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


@dataclass(slots=True)
class _Place:
    """One catalogue entry and what stands behind it now."""

    entry: ModelEntry
    info: ModelInfo
    model: Generator | Embedder | None = None


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
        device: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Reads the entries' options; loads nothing.

        Args:
            entries: The models, in catalogue order.
            store: Where their files are.
            device: Where models run whose entry does not say, e.g. ``"cuda"``; default
                is a GPU if there is one.
            clock: Tells the time, aware UTC.

        Raises:
            CatalogueError: An option is unknown or out of its range.
        """
        self._store = store
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._clock = clock
        self.batches: defaultdict[str, Tally] = defaultdict(lambda: Tally(ROWS))
        self._options = {entry.id: _options(entry) for entry in entries}
        self._places = {
            entry.id: _Place(entry, model_info(entry, engine=ENGINE)) for entry in entries
        }
        slots = [o.slots for o in self._options.values() if isinstance(o, GeneratorOptions)]
        self.scheduling = Batching(slots=max(slots, default=16))

    async def load(self) -> None:
        """Loads every model, one after the other. One that fails is FAILED, not fatal."""
        for model in self._places:
            try:
                await self.load_model(model)
            except Unavailable:
                continue  # its state and detail say so; the others serve

    async def load_model(self, model: str) -> None:
        """Loads one model, if it is not ready; returns when it is.

        Raises:
            NotFound: This engine does not have it.
            Unavailable: It can't be loaded; the model's `detail` says why.
        """
        place = self._place(model)
        if place.info.state in (ModelState.READY, ModelState.LOADING):
            return
        place.info = replace(place.info, state=ModelState.LOADING, detail="")
        events = asyncio.get_running_loop()
        try:
            place.model = await asyncio.to_thread(self._make, place, events)
            await place.model.verify()
        except Exception as error:
            # A loader's edge: whatever a model's files do to it, the service lives on.
            broken, place.model = place.model, None
            if broken is not None:
                await asyncio.to_thread(broken.close)
            self._failed(place, f"{type(error).__name__}: {error}")
            raise Unavailable(f"The model {model!r} can't be loaded.") from error
        place.info = replace(
            place.info,
            state=ModelState.READY,
            context_length=place.model.context_length,
            embedding_dimensions=getattr(place.model, "dimensions", 0),
            verified_at=self._clock(),
        )

    async def unload_model(self, model: str) -> None:
        """Stops one model and frees its memory; what it still does fails."""
        place = self._place(model)
        running, place.model = place.model, None
        place.info = replace(place.info, state=ModelState.UNLOADED, verified_at=None)
        if running is not None:
            await asyncio.to_thread(running.close)

    async def close(self) -> None:
        """Unloads every model. May be called twice."""
        for model in self._places:
            await self.unload_model(model)

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order, with their present state."""
        return tuple(place.info for place in self._places.values())

    async def verify(self, model: str) -> None:
        """Runs a one-token pass; raises if the model can't answer."""
        place = self._place(model)
        await self._ready(place).verify()
        place.info = replace(place.info, verified_at=self._clock())

    async def generate(self, job: GenerationJob) -> AsyncGenerator[GenerationEvent, None]:
        """Streams a generation. Closing the iterator stops it within one step."""
        events = self._generator(job.model).generate(job)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()

    async def embed(self, job: EmbeddingJob) -> EmbeddingResult:
        """Embeds texts."""
        return await self._embedder(job.model, "embed").embed(job)

    async def rerank(self, job: RerankJob) -> RerankResult:
        """Orders documents by the cosine of their vectors and the query's."""
        return await self._embedder(job.model, "rerank").rerank(job)

    async def count_tokens(self, model: str, prompt: PromptInput) -> int:
        """Counts tokens exactly as `generate` (or `embed`) would charge them as input."""
        ready = self._ready(self._place(model))
        if isinstance(ready, Generator):
            return await ready.count_tokens(prompt)
        if isinstance(prompt, ChatInput):
            raise InvalidArgument("input.chat needs a chat model.", field="input.chat")
        return await ready.count_tokens(prompt)

    def running(self, model: str) -> int:
        """Counts the choices of a model that hold a slot or wait for one."""
        return self._generator(model).running

    def _make(self, place: _Place, events: asyncio.AbstractEventLoop) -> Generator | Embedder:
        options = self._options[place.entry.id]
        device = torch.device(options.device or self._device)
        folder = model_folder(self._store, place.entry)
        if isinstance(options, EmbedderOptions):
            return Embedder(place.entry, options, folder, device=device)
        return Generator(
            place.entry,
            options,
            folder,
            device=device,
            events=events,
            on_failure=lambda detail: self._failed(place, detail),
            batches=self.batches[place.entry.id],
        )

    def _failed(self, place: _Place, detail: str) -> None:
        detail = " ".join(detail.split())[:500]
        place.info = replace(place.info, state=ModelState.FAILED, detail=detail, verified_at=None)

    def _place(self, model: str) -> _Place:
        return find_model(self._places, model)

    @staticmethod
    def _ready(place: _Place) -> Generator | Embedder:
        if place.model is None or place.info.state is not ModelState.READY:
            raise Unavailable(f"The model {place.entry.id!r} is {place.info.state.value}.")
        return place.model

    def _generator(self, model: str) -> Generator:
        ready = self._ready(self._place(model))
        if not isinstance(ready, Generator):
            raise Unimplemented(f"The model {model!r} does not generate text.")
        return ready

    def _embedder(self, model: str, what: str) -> Embedder:
        ready = self._ready(self._place(model))
        if not isinstance(ready, Embedder):
            raise Unimplemented(f"The model {model!r} does not {what}.")
        return ready


def _options(entry: ModelEntry) -> GeneratorOptions | EmbedderOptions:
    if set(entry.capabilities) & _EMBEDS:
        return read_options(EmbedderOptions, entry)
    return read_options(GeneratorOptions, entry)
