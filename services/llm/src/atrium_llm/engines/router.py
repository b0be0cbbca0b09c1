"""The engines of the service as one; `servicer.py` sees only this."""

from collections.abc import AsyncIterator

from atrium_common.routing import ModelRouter
from atrium_llm.domain import (
    EmbeddingJob,
    EmbeddingResult,
    GenerationEvent,
    GenerationJob,
    PromptInput,
    RerankJob,
    RerankResult,
)
from atrium_llm.engines.base import TextGenerationEngine


class EngineRouter(ModelRouter[TextGenerationEngine]):
    """Dispatches by model id; every method means what `TextGenerationEngine` says."""

    name = "llm"

    def generate(self, job: GenerationJob) -> AsyncIterator[GenerationEvent]:
        """Streams a generation from its engine."""
        return self.engine_of(job.model).generate(job)

    async def embed(self, job: EmbeddingJob) -> EmbeddingResult:
        """Embeds on its engine."""
        return await self.engine_of(job.model).embed(job)

    async def rerank(self, job: RerankJob) -> RerankResult:
        """Ranks on its engine."""
        return await self.engine_of(job.model).rerank(job)

    async def count_tokens(self, model: str, prompt: PromptInput) -> int:
        """Counts on its engine."""
        return await self.engine_of(model).count_tokens(model, prompt)
