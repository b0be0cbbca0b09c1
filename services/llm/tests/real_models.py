"""The starter models for tests that run them; fetched once, like `make run` does."""

import os
from pathlib import Path

from atrium_common.catalogue import Catalogue, ModelEntry
from atrium_common.weights import WeightStore

ROOT = Path(__file__).parents[3]
CHAT = "smollm2-135m-instruct"
EMBEDDING = "all-minilm-l6-v2"


def starter_store() -> WeightStore:
    """Opens the folder of weights: ``ATRIUM_MODELS_DIR``, else the repository's own."""
    return WeightStore(Path(os.environ.get("ATRIUM_MODELS_DIR", ROOT / ".atrium" / "models")))


def starter_entry(model: str, **changes: object) -> ModelEntry:
    """Returns an entry of the starter catalogue, its files at hand.

    Args:
        model: Catalogue id.
        changes: Fields to replace.
    """
    entries = Catalogue.load(ROOT / "models" / "starter.yaml").for_service("llm")
    entry = {entry.id: entry for entry in entries}[model]
    starter_store().ensure(entry)
    return entry.model_copy(update=changes)
