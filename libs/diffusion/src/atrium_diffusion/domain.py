"""What a picture is asked for with, and what comes back: plain types, no grpc, no torch.

Both picture services, their engines and the denoiser speak in these terms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""A picture: shape (height, width, 3), sRGB, 0 to 255."""
Mask = NDArray[np.float32]
"""What is drawn anew: shape (height, width), 0 (kept) to 1 (drawn anew)."""

PIXELS_PER_COUNT = 1000
"""A thousandth of a megapixel-step, the ledger's unit, is a thousand pixels in one step."""


class SchedulerKind(StrEnum):
    """How a denoising step is taken; the values are what REST takes and gives."""

    EULER = "euler"
    EULER_ANCESTRAL = "euler_ancestral"
    DPMPP_2M = "dpmpp_2m"
    DPMPP_2M_KARRAS = "dpmpp_2m_karras"
    DPMPP_2M_SDE = "dpmpp_2m_sde"
    DPMPP_2M_SDE_KARRAS = "dpmpp_2m_sde_karras"
    UNIPC = "unipc"
    DDIM = "ddim"
    LCM = "lcm"
    TCD = "tcd"
    EULER_TRAILING = "euler_trailing"


class PictureFormat(StrEnum):
    """How a finished picture is encoded."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraUse:
    """An adapter as it is asked for: catalogue id, and how strongly, -2 to 2."""

    id: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedLora:
    """An adapter as it is applied: `LoraUse` with the SHA-256 of its weights, hex."""

    id: str
    digest: str
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoising:
    """How pictures are denoised; ``None`` takes the model's default.

    Attributes:
        steps: Over the whole noise range, 1 to 150.
        guidance_scale: Classifier-free guidance, 0 to 30; 1 or less is off.
        scheduler: How a step is taken.
        seed: 0 to 2^63 - 1; picture i uses seed + i. ``None`` draws one.
        loras: Adapters, at most 8, no id twice.
        deterministic: Compute in a batch of its own: the same bytes again.
    """

    steps: int | None = None
    guidance_scale: float | None = None
    scheduler: SchedulerKind | None = None
    seed: int | None = None
    loras: tuple[LoraUse, ...] = ()
    deterministic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewOptions:
    """Early views: every `interval` steps (0 sends none), longest side in pixels."""

    interval: int = 0
    max_side: int = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """How pictures are encoded; `quality` 1 to 100 for JPEG and WEBP, else ``None``."""

    format: PictureFormat = PictureFormat.PNG
    quality: int | None = None
    embed_record: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """A picture to edit, at the size at which it is denoised.

    Attributes:
        pixels: The upload, oriented, without transparency, resized.
        mask: Of the same height and width, or ``None`` to draw all of it anew.
        digest: SHA-256 of the upload's bytes, lower-case hex.
        mask_digest: The same of the mask's upload; ``""`` for none.
    """

    pixels: Pixels
    mask: Mask | None = None
    digest: str = ""
    mask_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PictureJob:
    """One request, in a caller's terms.

    Attributes:
        model: Catalogue id.
        prompt: What to draw.
        negative_prompt: What to avoid; has an effect with guidance above 1.
        width: Pixels; 0 takes the model's native width. Not used with `sources`.
        height: Pixels; 0 takes the model's native height. Not used with `sources`.
        n: Pictures; of each source, where there are sources.
        denoising: How they are denoised.
        preview: What is shown on the way.
        priority: Orders the requests of one tenant, -2 to 2, highest first.
        truncate_prompt: Cut prompts to the model's text window instead of refusing.
        sources: Pictures to edit; empty to draw from text alone.
        strength: How much of the sources is drawn anew, 0 to 1.
        tenant: Whose request it is; shares are between tenants.
        weight: The tenant's weight against the others, above 0.
    """

    model: str
    prompt: str
    negative_prompt: str = ""
    width: int = 0
    height: int = 0
    n: int = 1
    denoising: Denoising = field(default_factory=Denoising)
    preview: PreviewOptions = field(default_factory=PreviewOptions)
    priority: int = 0
    truncate_prompt: bool = False
    sources: Sequence[Source] = ()
    strength: float = 1.0
    tenant: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PicturePlan:
    """One picture of a request, with everything decided.

    Attributes:
        index: Which picture of the request; from 0. Result j of source i is i * n + j.
        width: Pixels.
        height: Pixels.
        seed: Of this picture.
        steps: Steps that will be taken; for an edit fewer than asked for, by its
            strength: ``min(int(asked * strength), asked)``, at least 1 above strength 0.
        source: What it is made from, or ``None``.
    """

    index: int
    width: int
    height: int
    seed: int
    steps: int
    source: Source | None = None

    @property
    def pixel_steps(self) -> int:
        """Pixels times steps that it will take."""
        return self.width * self.height * self.steps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestPlan:
    """A request with everything decided, before any work; an engine makes it of a job.

    Attributes:
        job: What was asked for.
        pictures: The pictures, by index.
        schedule_steps: Steps of the whole noise range (`Denoising.steps`, resolved).
        guidance_scale: Guidance that is applied.
        scheduler: Scheduler that is used; ``None`` where a provider does not say.
        loras: Adapters that are applied, in a fixed order.
        unusual_size: True if a size is not one that the model was trained on.
        digest: SHA-256 of the model's main weight file; ``""`` if unknown.
        engine: Engine with its version, e.g. ``"diffusers 0.42.1"``.
    """

    job: PictureJob
    pictures: tuple[PicturePlan, ...]
    schedule_steps: int
    guidance_scale: float
    scheduler: SchedulerKind | None
    loras: tuple[AppliedLora, ...] = ()
    unusual_size: bool = False
    digest: str = ""
    engine: str = ""

    @property
    def millimegapixel_steps(self) -> int:
        """Upper bound of the work, in the ledger's unit."""
        return counted(sum(picture.pixel_steps for picture in self.pictures))


def counted(pixel_steps: int) -> int:
    """Pixel-steps in the ledger's unit, rounded up."""
    return -(-pixel_steps // PIXELS_PER_COUNT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits:
    """Sizes and steps that a model takes; mirrors `atrium.common.v1.ImageModelLimits`.

    `default_scheduler` is ``None``, and the other defaults 0, where a provider does not say.
    """

    model: str
    native_width: int
    native_height: int
    min_side: int
    max_side: int
    max_pixels: int
    default_steps: int
    default_guidance_scale: float
    default_scheduler: SchedulerKind | None
    loras: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTaken:
    """A picture took a step.

    Attributes:
        index: Which picture of the request.
        step: Steps taken, 1 to `steps`.
        steps: Steps that will be taken.
        seconds: The picture's share of the device's time since its last event.
    """

    index: int
    step: int
    steps: int
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreviewMade:
    """An early view, projected from latents without the decoder.

    Attributes:
        index: Which picture of the request.
        step: Steps taken when it was made.
        pixels: At most `PreviewOptions.max_side` on its longest side.
    """

    index: int
    step: int
    pixels: Pixels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PictureMade:
    """A picture is finished.

    Attributes:
        index: Which picture of the request.
        pixels: The picture. With a mask, the source's own pixels stand where the mask
            is 0.
        seconds: Its share of the device's time since its last event.
    """

    index: int
    pixels: Pixels
    seconds: float = 0.0


PictureEvent = StepTaken | PreviewMade | PictureMade
"""What an engine tells while it draws a request."""
