"""What pictures are asked for with and what comes back, in the gateway's own terms."""

from collections.abc import Sequence

import msgspec

LIMITS_SECONDS = 5.0
"""Longest time for asking what the models take."""


class Lora(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter: catalogue id, and how strongly, -2 to 2; ``None`` takes the default."""

    id: str
    scale: float | None = None


class Denoising(msgspec.Struct, frozen=True, kw_only=True):
    """How pictures are denoised; as `atrium.common.v1.DenoisingParams`.

    ``None`` and an empty scheduler take the model's defaults; a scheduler is named as in
    the proto, in lower case and without its prefix, e.g. ``"dpmpp_2m_karras"``.
    """

    steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str = ""
    seed: int | None = None
    loras: Sequence[Lora] = ()
    deterministic: bool = False


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """How pictures are encoded: ``"png"``, ``"jpeg"`` or ``"webp"``; quality 1 to 100."""

    format: str = "png"
    quality: int | None = None
    embed_record: bool = False


class Previews(msgspec.Struct, frozen=True, kw_only=True):
    """Early views: every `interval` steps (0 sends none), longest side in pixels."""

    interval: int = 0
    max_side: int | None = None


class Drawing(msgspec.Struct, frozen=True, kw_only=True):
    """Pictures from text; as `atrium.text2image.v1.GenerateImageRequest`.

    Attributes:
        model: Catalogue id.
        width: Pixels; 0 takes the model's native width.
        height: Pixels; 0 takes the model's native height.
        n: Pictures to draw.
    """

    model: str
    prompt: str
    negative_prompt: str = ""
    width: int = 0
    height: int = 0
    n: int = 1
    denoising: Denoising = Denoising()
    output: Output = Output()
    previews: Previews = Previews()
    priority: int = 0
    truncate_prompt: bool = False


class Edit(Drawing, frozen=True, kw_only=True):
    """Pictures from pictures; as `atrium.img2img.v1.EditConfig`.

    Attributes:
        width: Pixels; 0 follows the upload. Likewise `height`.
        n: Results for each upload.
        strength: How much is drawn anew, 0 to 1; ``None`` takes the service's default.
        mask_blur: Pixels by which the mask's edge is softened.
        resize_mode: ``"fit"``, ``"crop"``, ``"pad"``, ``"stretch"`` or ``"none"``.
    """

    strength: float | None = None
    mask_blur: int = 0
    resize_mode: str = "fit"


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided before the first step.

    Attributes:
        count: Pictures that will be drawn.
        steps: Steps that each will take.
        sizes: Width and height in pixels: of each upload's results, or once for all.
        seed: Of the first; picture i uses seed + i.
    """

    count: int
    steps: int
    sizes: Sequence[tuple[int, int]]
    seed: int


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A picture took a step: `step` of `steps`."""

    index: int
    step: int
    steps: int


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """An early view, a JPEG, after `step` steps."""

    index: int
    step: int
    jpeg: bytes


class AppliedLora(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that was applied; `digest` is the SHA-256 of its weights, hex."""

    id: str
    digest: str
    scale: float


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that made a picture; as `atrium.common.v1.ImageRecord`.

    Attributes:
        steps: That were taken; for an edit fewer than `schedule_steps`, by its strength.
        scheduler: ``""`` where a provider does not say.
        strength: Of an edit; 0 for a picture from text.
        source_digest: SHA-256 of the upload, hex; ``""`` for none. Likewise `mask_digest`.
    """

    model: str
    model_digest: str
    engine: str
    prompt: str
    negative_prompt: str
    width: int
    height: int
    seed: int
    steps: int
    guidance_scale: float
    scheduler: str
    loras: Sequence[AppliedLora]
    strength: float
    source_digest: str
    mask_digest: str
    deterministic: bool
    unusual_size: bool
    schedule_steps: int


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A picture is finished; `size` bytes of it follow, none if it is withheld.

    Attributes:
        withheld: ``""``, or why it is not sent: ``"unsafe"``.
    """

    index: int
    format: str
    size: int
    record: Record
    withheld: str = ""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """All bytes of a picture were sent; SHA-256 in hex."""

    index: int
    sha256: str
    size: int


Step = Begun | Progress | Preview | Start | End | bytes | None
"""One message of an answer; bytes are the next of the picture that was started last,
``None`` brings only usage."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes and steps that a model takes; as `atrium.common.v1.ImageModelLimits`."""

    model: str
    native_width: int
    native_height: int
    min_side: int
    max_side: int
    max_pixels: int
    default_steps: int
    default_guidance_scale: float
    default_scheduler: str
    loras: Sequence[str]
