"""vLLM, the production engine: continuous batching and paged attention in a process each.

Every model of the catalogue that names ``vllm`` gets an `AsyncLLM` of its own; on one
GPU they share it by ``gpu_memory_utilization``. vLLM itself is imported when a model is
loaded, off the event loop, so that health answers meanwhile.
"""

import asyncio
import importlib.util
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability, ModelInfo, ModelState
from atrium_common.engine_models import find_model, model_info
from atrium_common.engine_options import read_options
from atrium_common.errors import Unavailable, Unimplemented
from atrium_common.weights import WeightStore
from atrium_common.work import Batching
from atrium_llm.domain import (
    EmbeddingJob,
    EmbeddingResult,
    GenerationEvent,
    GenerationJob,
    PromptInput,
    RerankJob,
    RerankResult,
    Sampling,
    TextInput,
)
from atrium_llm.engines.vllm_options import VllmOptions
from atrium_llm.weights import model_folder

if TYPE_CHECKING:
    from atrium_llm.engines.vllm_model import VllmModel


class VllmEngine:
    """Meets `TextGenerationEngine` with one `AsyncLLM` for each model."""

    name = "vllm"

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        store: WeightStore,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Takes the catalogue's entries; starts nothing yet."""
        # Not installed is an error at once, not after the service has begun to listen.
        if importlib.util.find_spec("vllm") is None:
            raise ModuleNotFoundError("No module named 'vllm'", name="vllm")
        self._entries = {entry.id: entry for entry in entries}
        self._options = {entry.id: read_options(VllmOptions, entry) for entry in entries}
        self._store = store
        self._now = now
        self._models: dict[str, VllmModel] = {}
        self._verified: dict[str, datetime] = {}
        self._loading = False
        self.scheduling = Batching(
            slots=sum(options.max_num_seqs for options in self._options.values())
        )

    async def load(self) -> None:
        """Starts the engines one after the other; each takes its memory when it starts."""
        self._loading = True
        try:
            for entry in self._entries.values():
                self._models[entry.id] = await asyncio.to_thread(self._start, entry)
        finally:
            self._loading = False

    def _start(self, entry: ModelEntry) -> "VllmModel":
        from atrium_llm.engines.vllm_model import VllmModel

        folder = model_folder(self._store, entry)
        return VllmModel(entry, self._options[entry.id], folder)

    async def close(self) -> None:
        """Ends the engine processes."""
        models, self._models = self._models, {}
        for model in models.values():
            await asyncio.to_thread(model.close)

    @property
    def running(self) -> int:
        """Generations that are open now."""
        return sum(model.running for model in self._models.values())

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models; one whose process died is FAILED."""
        return tuple(self._info(entry) for entry in self._entries.values())

    def _info(self, entry: ModelEntry) -> ModelInfo:
        model = self._models.get(entry.id)
        state, detail = ModelState.UNLOADED, ""
        if model is None:
            state = ModelState.LOADING if self._loading else ModelState.UNLOADED
        elif model.engine.errored:
            state, detail = ModelState.FAILED, "the engine process died; restart the service"
        else:
            state = ModelState.READY
        return model_info(
            entry,
            engine=self.name,
            state=state,
            context_length=model.window if model else None,
            verified_at=self._verified.get(entry.id),
            detail=detail,
        )

    async def verify(self, model: str) -> None:
        """Generates one token, or embeds one."""
        capabilities = self._entry(model).capabilities
        if Capability.CHAT in capabilities or Capability.COMPLETION in capabilities:
            sampling = Sampling(max_tokens=1, temperature=0.0)
            job = GenerationJob(model=model, input=TextInput("a"), sampling=sampling)
            async for _ in self.generate(job):
                pass
        elif Capability.EMBEDDING in capabilities:
            await self.embed(EmbeddingJob(model=model, inputs=[TextInput("a")]))
        else:
            await self.rerank(RerankJob(model=model, query="a", documents=["a"]))
        self._verified[model] = self._now()

    async def generate(self, job: GenerationJob) -> AsyncGenerator[GenerationEvent, None]:
        """Streams a generation; closing it aborts the request in the engine."""
        model = self._ready(job.model, Capability.CHAT, Capability.COMPLETION)
        async with aclosing(model.generate(job)) as events:
            async for event in events:
                yield event

    async def embed(self, job: EmbeddingJob) -> EmbeddingResult:
        """Embeds texts."""
        model = self._ready(job.model, Capability.EMBEDDING)
        from atrium_llm.engines import vllm_pooling

        return await vllm_pooling.embed(model, job)

    async def rerank(self, job: RerankJob) -> RerankResult:
        """Orders documents."""
        model = self._ready(job.model, Capability.RERANK)
        from atrium_llm.engines import vllm_pooling

        return await vllm_pooling.rerank(model, job)

    async def count_tokens(self, model: str, prompt: PromptInput) -> int:
        """Counts with the model's own tokenizer and chat template."""
        return len((await self._ready(model).prompt(prompt)).ids)

    def _entry(self, model: str) -> ModelEntry:
        return find_model(self._entries, model)

    def _ready(self, model: str, *capabilities: Capability) -> "VllmModel":
        entry = self._entry(model)
        if capabilities and not set(capabilities) & set(entry.capabilities):
            raise Unimplemented(f"The model {model!r} does not offer {capabilities[0]}.")
        loaded = self._models.get(model)
        if loaded is None:
            raise Unavailable(f"The model {model!r} is not loaded.")
        return loaded
