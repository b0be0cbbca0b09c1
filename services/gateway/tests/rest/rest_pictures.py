"""Picture files: how tests make the ones that they send, and look at those that come back."""

import io
from typing import Any

import numpy as np
from PIL import Image

from atrium_diffusion.domain import Pixels


def gradient(
    width: int = 64, height: int = 48, *, mode: str = "RGB", shape: str = "PNG", **options: Any
) -> bytes:
    """Makes a picture file: a gradient, in a size, a mode and a format."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [columns * 255 // width, rows * 255 // height, (rows + columns) % 256]
    image = Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, shape, **options)
    return file.getvalue()


def decoded(data: bytes) -> Pixels:
    """Decodes a picture file."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
