"""A page as it is read: grey, bounded in size and turned upright. Boxes go back to the page.

The engines that read make views of a page; `lean.py` says by how much to turn it.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrium_common.images import Pixels, Size
from atrium_common.images.pixels import size_of
from atrium_img2text.reading import Box, PageImage

Grey = NDArray[np.uint8]
"""A grey picture: shape (height, width), 0 (black) to 255."""

MAX_SIDE = 32_000
"""Tesseract takes no side of more than 32,767 pixels."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """A page, scaled and turned about its middle on paper that grew to hold it.

    Attributes:
        grey: What is read.
        page: Size of the page as it was uploaded.
        scale: Size in the view by size on the page, above 0 up to 1.
        rotation: Degrees by which the page was turned clockwise, above -180 up to 180.
        resolution: Pixels per inch of the view, if that is known.
    """

    grey: Grey
    page: Size
    scale: float = 1.0
    rotation: float = 0.0
    resolution: int | None = None

    def turned(self, degrees: float) -> "View":
        """Returns this view turned further, clockwise; only an unturned one by odd angles.

        New paper has the page's most frequent shade, so that it adds no edges.
        """
        if not degrees:
            return self
        image = Image.fromarray(self.grey).rotate(
            -degrees,
            resample=Image.Resampling.BICUBIC,
            expand=True,
            fillcolor=int(np.bincount(self.grey.ravel(), minlength=1).argmax()),
        )
        rotation = 180.0 - (180.0 - self.rotation - degrees) % 360.0
        return replace(self, grey=np.asarray(image), rotation=rotation)

    def pixels_turned(self, degrees: float) -> float:
        """Returns how many pixels the view has once it is turned, about."""
        angle = math.radians(degrees)
        sine, cosine = abs(math.sin(angle)), abs(math.cos(angle))
        height, width = self.grey.shape
        pixels: float = (width * cosine + height * sine) * (width * sine + height * cosine)
        return pixels

    def box(self, left: float, top: float, right: float, bottom: float) -> Box:
        """Returns the box on the page around a rectangle of the view; never empty."""
        angle = math.radians(self.rotation)
        sine, cosine = math.sin(angle), math.cos(angle)
        height, width = self.grey.shape
        corners = [(x - width / 2, y - height / 2) for x in (left, right) for y in (top, bottom)]
        xs = [(x * cosine + y * sine) / self.scale + self.page.width / 2 for x, y in corners]
        ys = [(y * cosine - x * sine) / self.scale + self.page.height / 2 for x, y in corners]
        x, x_end = _span(min(xs), max(xs), self.page.width)
        y, y_end = _span(min(ys), max(ys), self.page.height)
        return Box(x, y, x_end - x, y_end - y)


def view_of(page: PageImage, *, max_pixels: int) -> View:
    """Returns a page as it lies, scaled down if it has more pixels or a longer side than is read.

    Args:
        page: The page.
        max_pixels: Most pixels to read, 1 or more.
    """
    size = size_of(page.pixels)
    scale = min(1.0, math.sqrt(max_pixels / size.pixels), MAX_SIDE / max(size))
    resolution = page.resolution and max(1, round(page.resolution * scale))
    return View(grey=_grey(page.pixels, scale), page=size, scale=scale, resolution=resolution)


def _grey(pixels: Pixels, scale: float) -> Grey:
    image = Image.fromarray(pixels).convert("L")
    if scale < 1.0:
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(size, Image.Resampling.BOX)
    return np.asarray(image)


def _span(start: float, end: float, limit: int) -> tuple[int, int]:
    """Rounds an interval to pixels of the page, at least one of them."""
    first = min(max(round(start), 0), limit - 1)
    return first, max(first + 1, min(round(end), limit))
