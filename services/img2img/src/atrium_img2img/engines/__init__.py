"""The engines by name; an engine's own libraries are imported only when it is opened.

`__main__` calls `open_engines` with the catalogue's entries; the router that comes
back finds the engine of a model.
"""

from collections.abc import Mapping, Sequence

from atrium_common.catalogue import AdapterEntry, ModelEntry
from atrium_common.lifecycle import Lifecycle
from atrium_common.weights import WeightStore
from atrium_diffusion import router
from atrium_diffusion.router import PictureRouter

ENGINES: Mapping[str, str] = {
    "diffusers": "atrium_diffusion.engines.diffusers:DiffusersEngine",
    "openai": "atrium_img2img.engines.openai:OpenAIEngine",
    "fake": "atrium_diffusion.engines.fake:FakeEngine",
}
"""Registry name -> ``"module:Class"``; the class takes what `open_engines` passes on."""


def open_engines(
    entries: Sequence[ModelEntry],
    *,
    store: WeightStore,
    adapters: Sequence[AdapterEntry] = (),
    lifecycle: Lifecycle | None = None,
) -> PictureRouter:
    """Makes the engines of the entries; see `atrium_diffusion.router.open_engines`."""
    return router.open_engines(
        ENGINES, "img2img", entries, store=store, adapters=adapters, lifecycle=lifecycle
    )
