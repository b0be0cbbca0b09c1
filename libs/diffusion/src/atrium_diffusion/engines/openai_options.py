"""What the catalogue says of a provider's picture model; see `engines/openai.py`."""

from typing import Annotated, Literal

from pydantic import Field

from atrium_common.openai_upstream import UpstreamOptions

_Size = Annotated[str, Field(pattern=r"^[1-9][0-9]{1,4}x[1-9][0-9]{1,4}$")]


class OpenAIPictureOptions(UpstreamOptions):
    """Options of a provider's picture model in the catalogue."""

    sizes: tuple[_Size, ...] = Field(
        default=("1024x1024", "1536x1024", "1024x1536"), min_length=1, max_length=64
    )
    """Sizes that it makes, width times height, its own first."""

    max_images: int = Field(default=10, ge=1, le=16)
    """Pictures that it makes of one request."""

    max_prompt_characters: int = Field(default=4_000, ge=1)
    """Longest prompt that it takes."""

    quality: str | None = Field(default=None, max_length=32)
    """Its quality, in its own terms; unset takes its default."""

    response_format: Literal["b64_json"] | None = None
    """Set it for models that answer with addresses otherwise: no address is followed."""

    @property
    def dimensions(self) -> tuple[tuple[int, int], ...]:
        """The sizes as (width, height), in the same order."""
        pairs = (size.split("x") for size in self.sizes)
        return tuple((int(width), int(height)) for width, height in pairs)

    @property
    def max_answer_pixels(self) -> int:
        """Most pixels that a picture of its may have."""
        return max(width * height for width, height in self.dimensions)
