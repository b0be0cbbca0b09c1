"""What all picture endpoints take alike, and what those of `/api` take and give. No logic."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from atrium_gateway.api.audio_schema import ModelName
from atrium_gateway.upstreams.pictures import Record

MAX_PICTURES = 16
"""Of a request, results and uploads alike."""
MAX_STEPS = 150
MAX_PREVIEW_INTERVAL = 50
"""Steps from one preview to the next."""
_INT32 = 2**31 - 1

PromptText = Annotated[str, Meta(min_length=1, max_length=4000)]
NegativeText = Annotated[str, Meta(max_length=4000)]
PictureCount = Annotated[int, Meta(ge=1, le=MAX_PICTURES)]
Side = Annotated[int, Meta(ge=1, le=_INT32)]
"""Pixels; which ones a model takes, its service says."""
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Steps = Annotated[int, Meta(ge=1, le=MAX_STEPS)]
Guidance = Annotated[float, Meta(ge=0, le=30)]
Strength = Annotated[float, Meta(ge=0, le=1)]
Quality = Annotated[int, Meta(ge=1, le=100)]
Format = Literal["png", "jpeg", "webp"]
ResizeMode = Literal["fit", "crop", "pad", "stretch", "none"]
MaskBlur = Annotated[int, Meta(ge=0, le=64)]
SchedulerName = Literal[
    "euler",
    "euler_ancestral",
    "dpmpp_2m",
    "dpmpp_2m_karras",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_karras",
    "unipc",
    "ddim",
    "lcm",
    "tcd",
    "euler_trailing",
]


class LoraChoice(Struct, forbid_unknown_fields=True):
    """An adapter: its catalogue id, and how strongly it acts."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    scale: Annotated[float, Meta(ge=-2, le=2)] | None = None


LoraText = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}(:-?[0-9]*\.?[0-9]+)?$")]
"""The same as text, for forms: ``"id"`` or ``"id:0.8"``."""
Loras = Annotated[list[LoraChoice | LoraText], Meta(max_length=8)]


class PictureOptions(Struct, forbid_unknown_fields=True, kw_only=True):
    """What every picture endpoint takes under the same name."""

    prompt: PromptText
    negative_prompt: NegativeText = ""
    model: ModelName | None = None
    n: PictureCount | None = None
    seed: Seed | None = None
    steps: Steps | None = None
    guidance_scale: Guidance | None = None
    scheduler: SchedulerName | None = None
    loras: Loras = []
    deterministic: bool = False
    embed_record: bool = False
    priority: Annotated[int, Meta(ge=-2, le=2)] = 0
    truncate_prompt: bool = False
    stream: bool | None = None


class TextToImageRequest(PictureOptions, kw_only=True):
    """Body of `POST /api/text-to-image`."""

    width: Side | None = None
    height: Side | None = None
    format: Format | None = None
    quality: Quality | None = None
    preview_interval: Annotated[int, Meta(ge=0, le=MAX_PREVIEW_INTERVAL)] = 0
    preview_max_side: Annotated[int, Meta(ge=32, le=512)] | None = None


class ImageToImageForm(TextToImageRequest, kw_only=True):
    """Fields of `POST /api/image-to-image`, beside the files."""

    strength: Strength | None = None
    mask_blur: MaskBlur = 0
    resize_mode: ResizeMode | None = None


class ImageToImageJson(ImageToImageForm, kw_only=True):
    """JSON body of `POST /api/image-to-image`; files are in base64."""

    image: bytes | Annotated[list[bytes], Meta(min_length=1, max_length=MAX_PICTURES)]
    mask: bytes | None = None


class StreamQuery(Struct, forbid_unknown_fields=True):
    """Query of the endpoints of `/api`; the same as `stream` in the body."""

    stream: bool = False


class PictureObject(Struct, frozen=True, kw_only=True):
    """A finished picture.

    Attributes:
        image: The file in base64; missing if the picture is withheld.
        index: Which one; result j of upload i is i * n + j.
        size: Bytes of the file.
        sha256: Its digest, hex.
        withheld: Why it is not sent: ``"unsafe"``; else ``null``.
        record: Everything that made it.
    """

    image: bytes | UnsetType = UNSET
    index: int
    format: str
    content_type: str
    size: int
    sha256: str
    withheld: str | None
    record: Record


class PictureUsage(Struct, frozen=True, kw_only=True):
    """What a request consumed; times in seconds, `inference_time` that of the device."""

    model: str
    model_digest: str
    engine: str
    images: int
    megapixel_steps: float
    queue_time: float
    inference_time: float


class PicturesAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `POST /api/text-to-image` and `/api/image-to-image` as JSON."""

    id: str
    model: str
    pictures: list[PictureObject]
    usage: PictureUsage


class PictureSize(Struct, frozen=True):
    """Pixels."""

    width: int
    height: int


class PicturesBegun(Struct, frozen=True, kw_only=True):
    """Event `info`: what was decided before the first step.

    Attributes:
        count: Pictures that will be drawn.
        steps: Steps that each will take.
        sizes: Of each upload's results, or once for all.
        seed: Of the first; picture i uses seed + i.
    """

    model: str
    count: int
    steps: int
    sizes: list[PictureSize]
    seed: int


class PicturePreview(Struct, frozen=True, kw_only=True):
    """Event `preview`: an early view after `step` steps, a JPEG in base64."""

    index: int
    step: int
    image: bytes


class PicturesDone(Struct, frozen=True, kw_only=True):
    """Event `done`: how many pictures were sent and withheld, and what they consumed."""

    id: str
    pictures: int
    withheld: int
    usage: PictureUsage
