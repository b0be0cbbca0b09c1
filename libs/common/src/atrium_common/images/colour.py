"""Any mode and colour profile to 8-bit sRGB and transparency. `decode.py` calls this.

A profile that can't be read, or is not of the picture's colours, is left out of account,
as browsers do. Gamma and primaries that a PNG gives without a profile are, too.
"""

import io

import numpy as np
from PIL import Image, ImageCms

from atrium_common.images.pixels import Alpha, Pixels

MAX_PROFILE_BYTES = 4 * 1024**2
"""A larger profile is left out of account; those of printing presses have 2 MiB."""

_DEEP = ("I;16", "I;16B")
"""16-bit grey; Pillow gives other pictures of 16 bits in 8."""

_OPAQUE = 255


def to_srgb(image: Image.Image) -> tuple[Pixels, Alpha | None]:
    """Converts a loaded picture.

    Returns:
        The colours, and the transparency; ``None`` where all of it is opaque.
    """
    if image.mode in _DEEP:
        grey, alpha = _in_8_bits(image)
    else:
        grey, alpha = image, _alpha(image)
    colours = np.array(_profiled(grey, image.info.get("icc_profile")))
    return colours, alpha


def _in_8_bits(image: Image.Image) -> tuple[Image.Image, Alpha | None]:
    levels = np.asarray(image)
    grey = Image.fromarray(((levels.astype(np.uint32) + 128) // 257).astype(np.uint8))
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey, None
    return grey, _unless_opaque(np.where(levels == clear, 0, _OPAQUE).astype(np.uint8))


def _alpha(image: Image.Image) -> Alpha | None:
    if not image.has_transparency_data:
        return None
    channels = image if "A" in image.getbands() else image.convert("RGBA")
    return _unless_opaque(np.array(channels.getchannel("A")))


def _unless_opaque(alpha: Alpha) -> Alpha | None:
    return None if alpha.min() == _OPAQUE else alpha


def _profiled(image: Image.Image, profile: object) -> Image.Image:
    """Brings colours to sRGB, by the picture's profile where it has one that holds."""
    if image.mode in ("1", "L", "LA"):
        plain = _as(image, "L")
    elif image.mode == "P":
        # By way of RGBA, because a palette's transparency has no place in RGB.
        plain = image.convert("RGBA").convert("RGB")
    else:
        plain = image if image.mode == "CMYK" else _as(image, "RGB")
    if isinstance(profile, bytes) and 0 < len(profile) <= MAX_PROFILE_BYTES:
        try:
            return _through_profile(plain, profile)
        except (ImageCms.PyCMSError, OSError):
            pass
    return _as(plain, "RGB")


def _as(image: Image.Image, mode: str) -> Image.Image:
    """Converts without copying what is in that mode: a picture may take half a gigabyte."""
    return image if image.mode == mode else image.convert(mode)


def _through_profile(image: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if "sRGB" in ImageCms.getProfileDescription(source):
        return _as(image, "RGB")  # exactly: a transform would be off by one here and there
    target = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    if converted is None:
        raise ImageCms.PyCMSError("nothing came back")
    return converted
