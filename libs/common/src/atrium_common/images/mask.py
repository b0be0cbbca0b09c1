"""An uploaded mask to what is drawn anew. The service that edits pictures calls this."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from atrium_common.errors import MediaError
from atrium_common.images.decode import ImageLimits, Picture, read_picture
from atrium_common.images.pixels import Mask, Size

_OPAQUE = 255


def read_mask(source: Path | bytes, *, size: Size, limits: ImageLimits, field: str) -> Mask:
    """Reads a mask: white is drawn anew, black is kept, grey blends.

    Where the file has transparency anywhere, that alone decides: transparent is drawn
    anew, opaque is kept whatever its colour (as OpenAI's API has it).

    Args:
        source: The upload.
        size: Of the picture that it is for, oriented.
        limits: What is taken.
        field: Names the upload in refusals.

    Raises:
        MediaError: It is no picture that is taken, or not of `size`.
    """
    picture = read_picture(source, limits=limits, field=field)
    if picture.size != size:
        raise MediaError(f"The mask has {picture.size} pixels, its picture {size}.", field=field)
    return _mask_of(picture)


def soften(mask: Mask, radius: int) -> Mask:
    """Blurs a mask's edges by `radius` pixels; far from an edge it stays exactly as it was."""
    if not radius:
        return mask
    # In whole grey levels, so that the blur ends.
    grey = Image.fromarray(np.rint(mask * _OPAQUE).astype(np.uint8))
    return _fraction(np.asarray(grey.filter(ImageFilter.GaussianBlur(radius))))


def _mask_of(picture: Picture) -> Mask:
    alpha = picture.alpha
    if alpha is not None and alpha.min() < _OPAQUE:
        return _fraction(_OPAQUE - alpha)
    return _fraction(np.asarray(Image.fromarray(picture.pixels).convert("L")))


def _fraction(levels: np.typing.NDArray[np.uint8]) -> Mask:
    return levels.astype(np.float32) / np.float32(_OPAQUE)
