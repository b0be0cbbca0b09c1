"""Any image-text-to-text model of transformers (LLaVA, Qwen2.5-VL, Idefics3, ...), batched.

The registry makes it with the catalogue entries that name it. The batches and the thread
are `engines/captioning`'s, what such models have in common is in `vlm_model.py`.
"""

from pathlib import Path

from pydantic import Field

from atrium_common.catalogue import ModelEntry
from atrium_img2text.engines.captioning.engine import CaptioningEngine
from atrium_img2text.engines.captioning.loading import device_of
from atrium_img2text.engines.captioning.model import CaptioningModel
from atrium_img2text.engines.captioning.options import CaptioningOptions
from atrium_img2text.engines.vlm_model import VlmModel


class VlmOptions(CaptioningOptions):
    """What a catalogue entry of this engine may set."""

    caption_prompt: str = Field(
        default="Describe the image in one sentence.", min_length=1, max_length=4000
    )
    """What a description is asked for with."""

    max_side: int = Field(default=2048, ge=32, le=16384)
    """Longest side of a picture in pixels; a larger one is made smaller before it is read."""


class VlmEngine(CaptioningEngine[VlmOptions]):
    """Runs catalogue entries with transformers; see `VisionEngine`."""

    name = "vlm"
    options_type = VlmOptions

    def open_model(self, entry: ModelEntry, options: VlmOptions, folder: Path) -> CaptioningModel:
        """Loads a model; see `CaptioningEngine`."""
        return VlmModel(
            folder,
            dtype=entry.dtype,
            device=device_of(options.device),
            caption_prompt=options.caption_prompt,
            max_side=options.max_side,
            context_length=entry.context_length,
        )
