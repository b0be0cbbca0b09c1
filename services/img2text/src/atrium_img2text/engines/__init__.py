"""The engines by name; an engine's own libraries are imported only when it is opened.

`__main__` calls `open_engines` with the catalogue's entries; the router that comes back
finds the engine of a model.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from atrium_common.catalogue import ModelEntry
from atrium_common.lifecycle import Lifecycle
from atrium_common.registry import by_engine, make_engine
from atrium_common.weights import WeightStore
from atrium_img2text.engines.base import ScheduledEngine
from atrium_img2text.engines.router import SightRouter

ENGINES: Mapping[str, str] = {
    "blip2": "atrium_img2text.engines.blip2:Blip2Engine",
    "vlm": "atrium_img2text.engines.vlm:VlmEngine",
    "openai": "atrium_img2text.engines.openai:OpenAIEngine",
    "tesseract": "atrium_img2text.engines.tesseract:TesseractEngine",
    "rapidocr": "atrium_img2text.engines.rapidocr:RapidOcrEngine",
    "fake": "atrium_img2text.engines.fake:FakeEngine",
}
"""Registry name -> ``"module:Class"``; the class takes `(entries, *, store, lifecycle)`."""


def open_engines(
    entries: Sequence[ModelEntry], *, store: WeightStore, lifecycle: Lifecycle | None = None
) -> SightRouter:
    """Makes one engine for each engine name of the entries, behind one router.

    Raises:
        CatalogueError: There are no entries, or an engine can't be made.
    """
    engines = {
        name: cast(
            "ScheduledEngine",
            make_engine(ENGINES, "img2text", name, served, store=store, lifecycle=lifecycle),
        )
        for name, served in by_engine(entries, "img2text").items()
    }
    return SightRouter(engines, {entry.id: entry.engine for entry in entries})
