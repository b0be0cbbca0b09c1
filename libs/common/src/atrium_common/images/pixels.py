"""The types that every file of this package speaks in."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""A picture: shape (height, width, 3), sRGB, 0 to 255."""
Alpha = NDArray[np.uint8]
"""How opaque it is: shape (height, width), 0 (transparent) to 255."""
Mask = NDArray[np.float32]
"""What is drawn anew: shape (height, width), 0 (kept) to 1 (drawn anew)."""


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"


def size_of(array: Pixels | Mask) -> Size:
    """Returns the size of an array of pixels."""
    height, width = array.shape[:2]
    return Size(width, height)
