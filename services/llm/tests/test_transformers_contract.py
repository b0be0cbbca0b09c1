"""The transformers engine keeps every engine's promises, with the real starter models."""

import pytest
from engine_contract import TextEngineContract
from real_models import CHAT, EMBEDDING

from atrium_llm.engines.base import TextGenerationEngine
from atrium_llm.engines.transformers import TransformersEngine


@pytest.fixture
def engine(transformers_engine: TransformersEngine) -> TransformersEngine:
    """The run's engine, as the contract suite calls it."""
    return transformers_engine


@pytest.mark.model
class TestTransformersEngine(TextEngineContract):
    """SmolLM2-135M-Instruct and all-MiniLM-L6-v2 on this machine."""

    model = CHAT
    embedding_model = EMBEDDING

    def running(self, engine: TextGenerationEngine) -> int | None:
        """The engine knows its slots."""
        assert isinstance(engine, TransformersEngine)
        return engine.running(self.model)
