"""vLLM, the production engine: continuous batching and paged attention in a process each.

Every model of the catalogue that names ``vllm`` gets an `AsyncLLM` of its own; on one
GPU they share it by ``gpu_memory_utilization``. vLLM itself is imported when a model is
loaded, off the event loop, so that health answers meanwhile.
"""

import asyncio
import gc
import importlib
import importlib.util
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability, ModelInfo
from atrium_common.engine_options import read_options
from atrium_common.errors import Unimplemented
from atrium_common.lifecycle import Lifecycle, ModelHandling, ModelHost
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
        lifecycle: Lifecycle | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Takes the catalogue's entries; starts nothing yet.

        Args:
            entries: The models, in catalogue order.
            store: Where their files are.
            lifecycle: Shared by the process's engines; see `ModelHost`.
            now: Aware UTC, for what `models` reports.
        """
        # Not installed is an error at once, not after the service has begun to listen.
        if importlib.util.find_spec("vllm") is None:
            raise ModuleNotFoundError("No module named 'vllm'", name="vllm")
        self._options = {entry.id: read_options(VllmOptions, entry) for entry in entries}
        self._store = store
        # The engine's own process has the memory: what it takes is what the catalogue says.
        handling = ModelHandling(
            open_model=self._open,
            warm_up=_answer_once,
            close_model=_end,
            failure=_failure,
            measure=lambda _: None,
        )
        self._host: ModelHost[VllmModel] = ModelHost(
            self.name, entries, handling, lifecycle=lifecycle, now=now
        )
        self.scheduling = Batching(
            slots=sum(options.max_num_seqs for options in self._options.values())
        )

    async def load(self) -> None:
        """Loads the models that are to be ready at start; see `ModelHost.load`."""
        await self._host.load()

    async def load_model(self, model: str) -> None:
        """Loads and verifies one model; see `ModelHost.load_model`."""
        await self._host.load_model(model)

    async def unload_model(self, model: str) -> None:
        """Frees a model's memory; see `ModelHost.unload_model`."""
        await self._host.unload_model(model)

    async def _open(self, entry: ModelEntry) -> "VllmModel":
        # Imported by a call of its own: libraries of vLLM's keep the frames that were there when
        # they were imported. A frame that holds a model would keep it for ever.
        await asyncio.to_thread(importlib.import_module, "atrium_llm.engines.vllm_model")
        return await asyncio.to_thread(self._start, entry)

    def _start(self, entry: ModelEntry) -> "VllmModel":
        from atrium_llm.engines.vllm_model import VllmModel

        folder = model_folder(self._store, entry)
        return VllmModel(entry, self._options[entry.id], folder)

    async def close(self) -> None:
        """Ends the engine processes.

        vLLM's objects end here, too. They are cycles, and what ends one (`AsyncLLM.__del__`)
        needs modules that are gone when the interpreter is taken down.
        """
        await self._host.close()
        await asyncio.to_thread(gc.collect)

    @property
    def running(self) -> int:
        """Generations that are open now."""
        loaded = (self._host.peek(model) for model in self._options)
        return sum(model.running for model in loaded if model is not None)

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models; one whose process died is FAILED until it is started anew."""
        return [self._sized(info) for info in self._host.models()]

    def _sized(self, info: ModelInfo) -> ModelInfo:
        loaded = self._host.peek(info.id)
        return info if loaded is None else replace(info, context_length=loaded.window)

    async def verify(self, model: str) -> None:
        """Generates one token, or embeds one."""
        await self._host.verify(model)

    async def generate(self, job: GenerationJob) -> AsyncGenerator[GenerationEvent, None]:
        """Streams a generation; closing it aborts the request in the engine."""
        async with (
            self._ready(job.model, Capability.CHAT, Capability.COMPLETION) as model,
            aclosing(model.generate(job)) as events,
        ):
            async for event in events:
                yield event

    async def embed(self, job: EmbeddingJob) -> EmbeddingResult:
        """Embeds texts."""
        from atrium_llm.engines import vllm_pooling

        async with self._ready(job.model, Capability.EMBEDDING) as model:
            return await vllm_pooling.embed(model, job)

    async def rerank(self, job: RerankJob) -> RerankResult:
        """Orders documents."""
        from atrium_llm.engines import vllm_pooling

        async with self._ready(job.model, Capability.RERANK) as model:
            return await vllm_pooling.rerank(model, job)

    async def count_tokens(self, model: str, prompt: PromptInput) -> int:
        """Counts with the model's own tokenizer and chat template."""
        async with self._ready(model) as loaded:
            return len((await loaded.prompt(prompt)).ids)

    @asynccontextmanager
    async def _ready(self, model: str, *capabilities: Capability) -> "AsyncIterator[VllmModel]":
        entry = self._host.entry(model)
        if capabilities and not set(capabilities) & set(entry.capabilities):
            raise Unimplemented(f"The model {model!r} does not offer {capabilities[0]}.")
        async with self._host.use(model) as loaded:
            yield loaded


async def _answer_once(entry: ModelEntry, model: "VllmModel") -> None:
    """Generates one token, or embeds one."""
    from atrium_llm.engines import vllm_pooling

    capabilities = entry.capabilities
    if Capability.CHAT in capabilities or Capability.COMPLETION in capabilities:
        sampling = Sampling(max_tokens=1, temperature=0.0)
        job = GenerationJob(model=entry.id, input=TextInput("a"), sampling=sampling)
        async with aclosing(model.generate(job)) as events:
            async for _ in events:
                pass
    elif Capability.EMBEDDING in capabilities:
        await vllm_pooling.embed(model, EmbeddingJob(model=entry.id, inputs=[TextInput("a")]))
    else:
        job_of_one = RerankJob(model=entry.id, query="a", documents=["a"])
        await vllm_pooling.rerank(model, job_of_one)


async def _end(entry: ModelEntry, model: "VllmModel") -> None:
    del entry
    await asyncio.to_thread(model.close)


def _failure(model: "VllmModel") -> str:
    return "the engine process died" if model.engine.errored else ""
