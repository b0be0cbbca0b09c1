"""The engines by name; an engine's own libraries are imported only when it is opened.

`__main__` calls `open_engines` with the catalogue's entries; the router that comes
back is the one engine that the servicer sees.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from atrium_common.catalogue import CatalogueError, ModelEntry
from atrium_common.domain import Capability
from atrium_common.lifecycle import Lifecycle
from atrium_common.registry import by_engine, make_engine
from atrium_common.weights import WeightStore
from atrium_llm.engines.base import TextGenerationEngine
from atrium_llm.engines.router import EngineRouter

ENGINES: Mapping[str, str] = {
    "transformers": "atrium_llm.engines.transformers:TransformersEngine",
    "vllm": "atrium_llm.engines.vllm:VllmEngine",
    "openai": "atrium_llm.engines.openai:OpenAiEngine",
    "fake": "atrium_llm.engines.fake:FakeEngine",
}
"""Registry name -> ``"module:Class"``; the class takes `(entries, *, store, lifecycle)`."""
_SEEING = frozenset({"openai", "fake"})
"""Engines that pass the pictures of a conversation on."""


def open_engine(
    name: str,
    entries: Sequence[ModelEntry],
    *,
    store: WeightStore,
    lifecycle: Lifecycle | None = None,
) -> TextGenerationEngine:
    """Makes an engine for its models; loads nothing yet.

    Raises:
        CatalogueError: No such engine, its libraries are not installed, an option of a
            model does not hold, or a model is said to see and the engine does not.
    """
    for entry in entries:
        if Capability.IMAGE_TO_TEXT in entry.capabilities and name not in _SEEING:
            raise CatalogueError(f"{entry.id}: the engine {name!r} does not see pictures")
    return cast(
        "TextGenerationEngine",
        make_engine(ENGINES, "llm", name, entries, store=store, lifecycle=lifecycle),
    )


def open_engines(
    entries: Sequence[ModelEntry], *, store: WeightStore, lifecycle: Lifecycle | None = None
) -> EngineRouter:
    """Makes one engine for each engine name of the entries, behind one router.

    Raises:
        CatalogueError: There are no entries, or an engine can't be made.
    """
    engines = {
        name: open_engine(name, served, store=store, lifecycle=lifecycle)
        for name, served in by_engine(entries, "llm").items()
    }
    return EngineRouter(engines, {entry.id: entry.engine for entry in entries})
