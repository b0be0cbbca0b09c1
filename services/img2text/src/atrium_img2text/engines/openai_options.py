"""What the catalogue says of a provider's model that sees; see `engines/openai.py`."""

from typing import Literal

from pydantic import Field

from atrium_common.openai_upstream import UpstreamOptions


class OpenAIVisionOptions(UpstreamOptions):
    """Options of a provider's model in the catalogue."""

    caption_prompt: str = Field(
        default="Describe the image in one sentence.", min_length=1, max_length=4000
    )
    """What a description is asked for with."""

    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # noqa: S105
    """What the server calls the limit; OpenAI's newer models want the second."""

    max_side: int = Field(default=2048, ge=32, le=16384)
    """Longest side of a picture that is sent, in pixels; a larger one is made smaller."""

    max_image_bytes: int = Field(default=4 << 20, ge=16 << 10)
    """Largest picture file that is sent; one whose PNG is larger goes as a JPEG."""

    detail: Literal["low", "high", "auto"] | None = None
    """How closely the server looks, in OpenAI's terms; unset leaves it to the server."""

    image_tokens: int = Field(default=1000, ge=0)
    """Guess of what a picture takes of the context, until the server tells its count."""

    logprobs: bool = False
    """Ask for log probabilities, so that captions are ranked; not every server has them."""

    reports_usage: bool = True
    """Ask for usage in the stream; unset it for a server that refuses the option."""
