"""The transformers engine keeps every engine's promises, with the real starter models."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from engine_contract import TextEngineContract
from real_models import CHAT, EMBEDDING, starter_entry, starter_store

from atrium_llm.engines.base import TextGenerationEngine
from atrium_llm.engines.transformers import TransformersEngine


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine() -> AsyncIterator[TransformersEngine]:
    """Both models in one engine."""
    entries = [starter_entry(CHAT), starter_entry(EMBEDDING)]
    engine = TransformersEngine(entries, store=starter_store(), device="cpu")
    await engine.load()
    yield engine
    await engine.close()


@pytest.mark.model
class TestTransformersEngine(TextEngineContract):
    """SmolLM2-135M-Instruct and all-MiniLM-L6-v2 on this machine."""

    model = CHAT
    embedding_model = EMBEDDING

    def running(self, engine: TextGenerationEngine) -> int | None:
        """The engine knows its slots."""
        assert isinstance(engine, TransformersEngine)
        return engine.running(self.model)
