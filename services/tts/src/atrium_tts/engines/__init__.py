"""The engines by name; an engine's own libraries are imported only when it is opened.

`__main__` calls `open_engines` with the catalogue's entries; the router that comes
back finds the engine of a model.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from atrium_common.catalogue import ModelEntry
from atrium_common.lifecycle import Lifecycle
from atrium_common.registry import by_engine, make_engine
from atrium_common.weights import WeightStore
from atrium_tts.engines.base import SpeechEngine
from atrium_tts.engines.router import EngineRouter

ENGINES: Mapping[str, str] = {
    "kokoro": "atrium_tts.engines.kokoro:KokoroEngine",
    "xtts": "atrium_tts.engines.xtts:XttsEngine",
    "openai": "atrium_tts.engines.openai:OpenAIEngine",
    "fake": "atrium_tts.engines.fake:FakeEngine",
}
"""Registry name -> ``"module:Class"``; the class takes `(entries, *, store, lifecycle)`."""


def open_engine(
    name: str,
    entries: Sequence[ModelEntry],
    *,
    store: WeightStore,
    lifecycle: Lifecycle | None = None,
) -> SpeechEngine:
    """Makes an engine for its models; loads nothing yet.

    Raises:
        CatalogueError: No such engine, its libraries are not installed, or an option
            of a model does not hold.
    """
    return cast(
        "SpeechEngine",
        make_engine(ENGINES, "tts", name, entries, store=store, lifecycle=lifecycle),
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
        for name, served in by_engine(entries, "tts").items()
    }
    return EngineRouter(engines, {entry.id: entry.engine for entry in entries})
