"""Lets test modules import their neighbours, and shares the one real engine of a run."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from atrium_llm.engines.transformers import TransformersEngine


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def transformers_engine() -> "AsyncIterator[TransformersEngine]":
    """SmolLM2 and MiniLM on this machine; loading takes seconds, so all tests share it."""
    # Imported here: the other engines' tests run where torch is not installed.
    from real_models import CHAT, EMBEDDING, starter_entry, starter_store

    from atrium_llm.engines.transformers import TransformersEngine

    entries = [starter_entry(CHAT), starter_entry(EMBEDDING)]
    engine = TransformersEngine(entries, store=starter_store(), device="cpu")
    await engine.load()
    yield engine
    await engine.close()
