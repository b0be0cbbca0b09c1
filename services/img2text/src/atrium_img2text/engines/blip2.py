"""The `blip2` engine: captions and answers by BLIP-2 models, batched across requests.

The registry makes it with the catalogue entries that name it. Its parts are in
`engines/captioning`.
"""

from pathlib import Path

from pydantic import Field

from atrium_common.catalogue import ModelEntry
from atrium_img2text.engines.captioning.blip2 import Blip2Model
from atrium_img2text.engines.captioning.engine import CaptioningEngine
from atrium_img2text.engines.captioning.loading import device_of
from atrium_img2text.engines.captioning.options import CaptioningOptions


class Blip2Options(CaptioningOptions):
    """Options of a BLIP-2 model.

    Attributes:
        description_prompt: Stands before a caption that is asked for without a prefix;
            default is none for OPT, and ``"a photo of"`` for Flan-T5.
    """

    description_prompt: str | None = Field(default=None, max_length=512)


class Blip2Engine(CaptioningEngine[Blip2Options]):
    """Runs BLIP-2 checkpoints of OPT and Flan-T5; meets `VisionEngine`."""

    name = "blip2"
    options_type = Blip2Options

    def open_model(self, entry: ModelEntry, options: Blip2Options, folder: Path) -> Blip2Model:
        """Loads a BLIP-2 checkpoint."""
        return Blip2Model(
            folder,
            dtype=entry.dtype,
            device=device_of(options.device),
            context_length=entry.context_length,
            description_prompt=options.description_prompt,
        )
