"""Pixels to a picture file. The finishing of pictures calls this, in a thread."""

import io
from collections.abc import Mapping

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from atrium_common.images.pixels import Pixels

_LOSSLESS = 100
_PNG_EFFORT = 4
"""Of 9: within 1% of the default's size in half of its time."""
_PREVIEW_QUALITIES = (80, 60, 40, 20, 10, 1)


def encode(
    pixels: Pixels,
    format: str,
    *,
    quality: int | None = None,
    text: Mapping[str, str] | None = None,
) -> bytes:
    """Encodes a picture.

    Args:
        pixels: The picture.
        format: ``"png"``, ``"jpeg"`` or ``"webp"``.
        quality: 1 to 100, for JPEG and WebP; a WebP of 100 is lossless. ``None`` is 90.
        text: Text chunks of a PNG, keyword to ASCII text.

    Raises:
        ValueError: The format is unknown, or an option is not for it.
    """
    if format == "png":
        if quality is not None:
            raise ValueError("a PNG has no quality")
        return _png(pixels, text or {})
    if text:
        raise ValueError("only a PNG has text chunks")
    quality = 90 if quality is None else quality
    if format == "jpeg":
        return _jpeg(pixels, quality)
    if format == "webp":
        return _webp(pixels, quality)
    raise ValueError(f"{format.upper()} is not written")


def encode_within(pixels: Pixels, *, max_bytes: int) -> bytes:
    """Encodes a small picture as JPEG of the best quality that fits into `max_bytes`.

    Raises:
        ValueError: None does.
    """
    for quality in _PREVIEW_QUALITIES:
        data = _jpeg(pixels, quality)
        if len(data) <= max_bytes:
            return data
    raise ValueError(f"the picture does not fit into {max_bytes} bytes")


def _png(pixels: Pixels, text: Mapping[str, str]) -> bytes:
    info = PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", pnginfo=info, compress_level=_PNG_EFFORT)
    return out.getvalue()


def _jpeg(pixels: Pixels, quality: int) -> bytes:
    out = io.BytesIO()
    # Colour at full resolution where the caller asks for quality, else halved as usual.
    sampling = "4:4:4" if quality >= 90 else "4:2:0"
    Image.fromarray(pixels).save(out, "JPEG", quality=quality, subsampling=sampling)
    return out.getvalue()


def _webp(pixels: Pixels, quality: int) -> bytes:
    out = io.BytesIO()
    lossless = quality == _LOSSLESS
    # In a lossless file, quality is how hard the encoder tries.
    effort = 50 if lossless else quality
    Image.fromarray(pixels).save(out, "WEBP", lossless=lossless, quality=effort, method=4)
    return out.getvalue()
