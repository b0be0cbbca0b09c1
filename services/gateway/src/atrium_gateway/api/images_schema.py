"""What `/v1/images/generations` and `/v1/images/edits` take and give. No logic."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from atrium_gateway.api.picture_schema import (
    MAX_PICTURES,
    Format,
    MaskBlur,
    PictureOptions,
    ResizeMode,
    Strength,
)
from atrium_gateway.upstreams.pictures import Record

SizeText = Annotated[str, Meta(pattern="^(auto|[1-9][0-9]{0,8}x[1-9][0-9]{0,8})$")]
QualityName = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]


class ImageRequest(PictureOptions, kw_only=True):
    """Body of `POST /v1/images/generations`; those beyond OpenAI's are in its base."""

    size: SizeText | None = None
    quality: QualityName | None = None
    response_format: Literal["b64_json", "url"] | None = None
    output_format: Format | None = None
    output_compression: Annotated[int, Meta(ge=0, le=100)] | None = None
    partial_images: Annotated[int, Meta(ge=0, le=3)] | None = None
    # Accepted without effect: pictures are opaque, and are looked at or not by the operator.
    background: Literal["auto", "opaque"] | None = None
    moderation: Literal["auto"] | None = None
    user: str | None = None
    safety_identifier: str | None = None


class ImageEditForm(ImageRequest, kw_only=True):
    """Fields of `POST /v1/images/edits`, beside the files."""

    strength: Strength | None = None
    mask_blur: MaskBlur = 0
    resize_mode: ResizeMode | None = None
    # Accepted without effect; how much is kept is `strength`.
    input_fidelity: Literal["low"] | None = None


class ImageReference(Struct, forbid_unknown_fields=True):
    """A picture inside its own URL; the gateway fetches nothing and keeps no files."""

    image_url: Annotated[str, Meta(pattern="^data:image/[a-z+.-]+;base64,")]


class ImageEditJson(ImageEditForm, kw_only=True):
    """JSON body of `POST /v1/images/edits`."""

    images: Annotated[list[ImageReference], Meta(min_length=1, max_length=MAX_PICTURES)]
    mask: ImageReference | None = None


class TokenDetails(Struct, frozen=True, kw_only=True):
    """Tokens by what they stand for."""

    image_tokens: int = 0
    text_tokens: int = 0


class ImageUsage(Struct, frozen=True, kw_only=True):
    """What a request consumed, in OpenAI's shape and in what is really counted.

    Attributes:
        input_tokens: Tokens that the engine counted; 0 for those that work without.
        output_tokens: Likewise.
        images: Pictures that were finished.
        megapixel_steps: Megapixels times denoising steps.
        inference_time: Seconds of the device.
    """

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: TokenDetails
    output_tokens_details: TokenDetails
    images: int
    megapixel_steps: float
    inference_time: float


class ImageData(Struct, frozen=True, kw_only=True):
    """A picture of an answer; `index` and `record` go beyond OpenAI's shape."""

    b64_json: bytes | UnsetType = UNSET
    index: int
    record: Record


class WithheldImage(Struct, frozen=True, kw_only=True):
    """A picture that was drawn and is not sent."""

    index: int
    reason: str


class ImagesAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `POST /v1/images/generations` and `/v1/images/edits`.

    Attributes:
        size: Of the pictures; missing if uploads gave several.
        withheld: Pictures that are not in `data`; beyond OpenAI's shape.
    """

    created: int
    data: list[ImageData]
    background: str
    output_format: str
    quality: str
    size: str | UnsetType
    usage: ImageUsage
    withheld: list[WithheldImage]


class ImageEvent(Struct, frozen=True, kw_only=True):
    """What all events of a streamed answer say; `index` goes beyond OpenAI's shape."""

    type: str
    created_at: int
    background: str
    output_format: str
    quality: str
    size: str
    index: int


class PartialImageEvent(ImageEvent, frozen=True, kw_only=True):
    """An early view; it is a JPEG, smaller than the picture, whatever `size` says of that."""

    partial_image_index: int
    b64_json: bytes | UnsetType = UNSET


class CompletedImageEvent(ImageEvent, frozen=True, kw_only=True):
    """A finished picture, and what was consumed since the one before."""

    usage: ImageUsage
    record: Record
    b64_json: bytes | UnsetType = UNSET


class WithheldImageEvent(Struct, frozen=True, kw_only=True):
    """A picture that was drawn and is not sent; beyond OpenAI's shape."""

    type: str
    index: int
    reason: str
