"""The engines by name; an engine's own libraries are imported only when it is opened.

`__main__` calls `open_engines` with the catalogue's entries; the router that comes
back is the one engine that the servicer sees.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from atrium_common.catalogue import CatalogueError, ModelEntry
from atrium_common.weights import WeightStore
from atrium_llm.engines.base import TextGenerationEngine
from atrium_llm.engines.router import EngineRouter

ENGINES: Mapping[str, str] = {
    "transformers": "atrium_llm.engines.transformers:TransformersEngine",
    "vllm": "atrium_llm.engines.vllm:VllmEngine",
    "openai": "atrium_llm.engines.openai:OpenAiEngine",
    "fake": "atrium_llm.engines.fake:FakeEngine",
}
"""Registry name -> ``"module:Class"``; the class takes `(entries, *, store)`."""


def open_engine(
    name: str, entries: Sequence[ModelEntry], *, store: WeightStore
) -> TextGenerationEngine:
    """Imports an engine and makes it for its models; loads nothing yet.

    Raises:
        CatalogueError: No such engine, its libraries are not installed, or an option
            of a model does not hold.
    """
    target = ENGINES.get(name)
    if target is None:
        raise CatalogueError(f"{entries[0].id}: no engine {name!r}; known: {', '.join(ENGINES)}")
    module, _, attribute = target.partition(":")
    try:
        engine_class = getattr(importlib.import_module(module), attribute)
        make = cast(Callable[..., TextGenerationEngine], engine_class)
        return make(entries, store=store)
    except ModuleNotFoundError as error:
        raise CatalogueError(
            f"{entries[0].id}: the engine {name!r} needs {error.name!r}; install atrium-llm[{name}]"
        ) from error


def open_engines(entries: Sequence[ModelEntry], *, store: WeightStore) -> EngineRouter:
    """Makes one engine for each engine name of the entries, behind one router.

    Raises:
        CatalogueError: There are no entries, or an engine can't be made.
    """
    if not entries:
        raise CatalogueError("the catalogue names no model for the service llm")
    names = dict.fromkeys(entry.engine for entry in entries)
    engines = {
        name: open_engine(name, [entry for entry in entries if entry.engine == name], store=store)
        for name in names
    }
    return EngineRouter(engines, {entry.id: entry.engine for entry in entries})


def with_engine(entries: Sequence[ModelEntry], engine: str | None) -> list[ModelEntry]:
    """Returns the entries, served by `engine` instead of their own where it is given.

    Options are an engine's own, so those of an entry whose engine changes are dropped.
    """
    return [
        entry
        if engine in (None, entry.engine)
        else entry.model_copy(update={"engine": engine, "options": {}})
        for entry in entries
    ]
