"""What every text engine meets, so that the servicer needs to know none of them."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from atrium_common.domain import ModelInfo
from atrium_common.work import Batching, Serial
from atrium_llm.domain import (
    EmbeddingJob,
    EmbeddingResult,
    GenerationEvent,
    GenerationJob,
    PromptInput,
    RerankJob,
    RerankResult,
)


class TextGenerationEngine(Protocol):
    """Serves one or more language models of the catalogue.

    A model that an engine does not serve is `NotFound`; an option that it can't
    honour is `InvalidArgument` naming the field; a capability that it lacks is
    `Unimplemented`.
    """

    name: str
    """Registry name, e.g. ``"transformers"``; it stands in every `Usage`."""

    scheduling: Serial | Batching
    """How many generations it takes at once; the servicer's queue reads it."""

    async def load(self) -> None:
        """Loads every model that is to be ready at start."""
        ...

    async def close(self) -> None:
        """Stops running work and frees memory. May be called twice."""
        ...

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order, with their present state."""
        ...

    async def verify(self, model: str) -> None:
        """Runs a one-token pass; raises if the model can't answer."""
        ...

    def generate(self, job: GenerationJob) -> AsyncIterator[GenerationEvent]:
        """Streams a generation. Closing the iterator stops it within one step."""
        ...

    async def embed(self, job: EmbeddingJob) -> EmbeddingResult:
        """Embeds texts."""
        ...

    async def rerank(self, job: RerankJob) -> RerankResult:
        """Orders documents by relevance."""
        ...

    async def count_tokens(self, model: str, prompt: PromptInput) -> int:
        """Counts tokens exactly as `generate` would charge them as input."""
        ...
