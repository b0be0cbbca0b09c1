"""An uploaded picture to pixels, or a refusal by name, bounded before anything is decoded.

Services call this before a request waits for its engine, in a thread.

- Only PNG, JPEG and WebP of one frame are taken, by their content, and BMP, TIFF and a
  GIF's first frame where the caller asks for them; nothing in a file is executed, and
  nothing but pixels, transparency, profile, orientation and resolution is read of it.
- Bytes, sides and pixels are bounded by what the header says, before memory is spent.
- What follows the picture in its file (an archive, a film, a gain map) is left out of
  account, as viewers do: phones append such things, and nothing of a file but its pixels
  goes on from here, so that an appended archive goes nowhere.
- A file that ends too early, or whose checksums do not hold, is refused.
- The orientation in its metadata is applied, colours become sRGB (`colour.py`).
"""

import io
import math
import struct
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from atrium_common.errors import MediaError
from atrium_common.images.colour import to_srgb
from atrium_common.images.jpeg import MAX_SCANS, count_scans
from atrium_common.images.orientation import UPRIGHT, read_orientation, turn_upright
from atrium_common.images.pixels import Alpha, Pixels, Size, size_of
from atrium_common.images.sniff import BMP, GIF, JPEG, PNG, TAKEN, TIFF, WEBP, name_format
from atrium_common.images.tiff import only_tiff_page, silence_decoder

# The classes themselves: `Image.open` makes several pictures of a JPEG with an appendix.
_READERS: dict[str | None, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    PNG: PngImageFile,
    JPEG: JpegImageFile,
    WEBP: WebPImageFile,
    BMP: BmpImageFile,
    GIF: GifImageFile,
    TIFF: TiffImageFile,
}
_SANE_RESOLUTIONS = (50, 1200)
"""Pixels per inch that are believed. Scanners and screens are in between."""

# What Pillow raises for files that are damaged on purpose, found by trying.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What is decoded at most.

    Attributes:
        max_bytes: Of the file.
        max_pixels: Width times height. Decoding takes up to 16 bytes of memory for each.
        max_side: Pixels of the longer side.
    """

    max_bytes: int = 32 * 1024**2
    max_pixels: int = 64_000_000
    max_side: int = 32_768


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """A picture as it is to be seen: upright, in sRGB.

    Attributes:
        pixels: Its colours, shape (height, width, 3).
        alpha: How opaque it is, shape (height, width); ``None`` if all of it is.
        format: Its usual name, e.g. ``"PNG"``.
        resolution: Pixels per inch, if the file says so and it may be true.
    """

    pixels: Pixels
    alpha: Alpha | None
    format: str
    resolution: int | None = None

    @property
    def size(self) -> Size:
        """Width and height, upright."""
        return size_of(self.pixels)

    def opaque(self, background: tuple[int, int, int] = (255, 255, 255)) -> Pixels:
        """Returns its colours with `background` behind what is transparent."""
        if self.alpha is None:
            return self.pixels
        behind = Image.new("RGB", self.size, background)
        return np.array(
            Image.composite(Image.fromarray(self.pixels), behind, Image.fromarray(self.alpha))
        )


def read_picture(
    source: Path | bytes,
    *,
    limits: ImageLimits,
    field: str,
    formats: Collection[str] = TAKEN,
    page: int = 1,
) -> Picture:
    """Decodes an upload.

    Args:
        source: The file, or its bytes.
        limits: What is taken.
        field: Names the upload in refusals.
        formats: Which formats are taken; more of `EVERY` than usual.
        page: Of a TIFF, from 1.

    Raises:
        MediaError: It is over a limit, of a format that is not taken, animated (no GIF is),
            or damaged.
    """
    data = read_bytes(source, limits=limits, field=field)
    name = name_format(data)
    reader = _READERS[name] if name in formats else None
    if name is None or reader is None:
        raise _not_taken(name, formats, field)
    if name == TIFF:
        silence_decoder()
        data = only_tiff_page(data, page, field=field)
    try:
        with reader(io.BytesIO(data)) as image:
            _check(image, name, limits, field)
            if name == JPEG and count_scans(data) > MAX_SCANS:
                raise MediaError(f"The JPEG has over {MAX_SCANS} scans.", field=field)
            image.load()
            pixels, alpha = to_srgb(image)
            # Pillow turns a TIFF itself, and leaves other pictures as they lie.
            orientation = UPRIGHT if name == TIFF else read_orientation(image.info.get("exif"))
            resolution = _resolution(image.info.get("dpi"))
    except Image.DecompressionBombError as err:
        raise _too_large(limits, field) from err
    except _DAMAGE as err:
        raise MediaError(f"The {name} file is cut or damaged.", field=field) from err
    return Picture(
        pixels=turn_upright(pixels, orientation),
        alpha=None if alpha is None else turn_upright(alpha, orientation),
        format=name,
        resolution=resolution,
    )


def read_bytes(source: Path | bytes, *, limits: ImageLimits, field: str) -> bytes:
    """Returns the bytes of an upload; `MediaError` if there are too many."""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size > limits.max_bytes:
        raise MediaError(f"The upload has more than {limits.max_bytes} bytes.", field=field)
    return source if isinstance(source, bytes) else source.read_bytes()


def _check(image: ImageFile.ImageFile, name: str, limits: ImageLimits, field: str) -> None:
    """Refuses what its header says, before it is decoded."""
    size = Size(*image.size)
    if max(size) > limits.max_side or size.pixels > limits.max_pixels:
        raise _too_large(limits, field)
    if name not in (GIF, TIFF) and getattr(image, "n_frames", 1) > 1:
        raise MediaError("The upload is animated; pictures of one frame are taken.", field=field)
    if name == TIFF and image.mode in ("I", "F"):
        raise MediaError("TIFFs of up to 16 bits a colour are taken.", field=field)


def _resolution(stated: object) -> int | None:
    """Pixels per inch, from what Pillow found of both directions."""
    if not isinstance(stated, tuple) or len(stated) != 2:
        return None
    across, down = (float(value) for value in stated)
    least, most = _SANE_RESOLUTIONS
    # A fax has other pixels across than down, which one number can't say.
    if not (least <= across <= most and math.isclose(across, down, rel_tol=0.02)):
        return None
    return round(across)


def _not_taken(name: str | None, formats: Collection[str], field: str) -> MediaError:
    what = f"a file of the format {name}" if name else "no picture that is known"
    *first, last = formats
    return MediaError(
        f"The upload is {what}; {', '.join(first)} and {last} are taken.", field=field
    )


def _too_large(limits: ImageLimits, field: str) -> MediaError:
    return MediaError(
        f"The picture is too large: at most {limits.max_pixels} pixels are taken, "
        f"{limits.max_side} to a side.",
        field=field,
    )
