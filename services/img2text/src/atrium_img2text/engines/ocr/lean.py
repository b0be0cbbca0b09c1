"""Whether lines of text lie or stand, and by how much they lean.

Seen from so far that its letters run together, text is stripes: it changes across its
lines, and little along them. How much more the picture changes downwards than sideways
tells whether lines lie, also of a single word.

Where lines are level, rows full of ink and rows without follow each other sharply. The
angle at which they do so most is the lean (Postl, "Detection of linear oblique structures
and skew scan in digitized documents", 1986). On rendered pages this was right to 0.1
degrees where Tesseract's own layout analysis was up to 0.7 degrees off or found nothing, in
a third of its time.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrium_img2text.engines.ocr.upright import Grey, View

MOST = 10.0
"""Degrees; what leans more is not a page that was laid down askew."""
LEAST = 0.4
"""Degrees; Tesseract reads what leans less as well, and unturned pixels are sharper."""
MAX_PIXELS = 54_000_000
"""Of a page that is turned by what it leans: A4 at 600 pixels per inch grows to 49 million."""

_SIDE = 800
_MAX_POINTS = 60_000
_MIN_POINTS = 40
_COARSE, _FINE = 0.5, 0.1
_GAIN = 1.15
"""How much sharper rows must become to believe an angle."""
_DISTANCES = (4, 6, 8, 12, 16, 24, 32, 48)
"""Sides of the squares, in pixels of the small copy, within which letters run together."""
_STANDING = 0.5
"""Natural logarithm of how much more a picture must change sideways to believe that lines
stand; on rendered pages it was 1 and more."""

_Ink = NDArray[np.bool_]
_Points = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Lean:
    """How lines of text lie on a page.

    Attributes:
        standing: Whether they run from top to bottom, or up.
        degrees: By how much they lean clockwise from level or upright, -10 to 10; 0 if it
            is too little to matter or can't be told.
    """

    standing: bool = False
    degrees: float = 0.0


def level(view: View) -> View:
    """Turns a view so that its lines lie level, if they do not; upside down, perhaps.

    A long strip is not levelled where that would make a huge page of it.
    """
    lean = lean_of(view.grey)
    quarter = -90.0 if lean.standing else 0.0
    fits = view.pixels_turned(lean.degrees) <= MAX_PIXELS
    return view.turned(quarter - lean.degrees if fits else quarter)


def lean_of(grey: Grey) -> Lean:
    """Finds out how lines of text lie; level if there is no text."""
    ink = _ink(grey)
    y, x = np.nonzero(ink)
    if len(x) < _MIN_POINTS:
        return Lean()
    step = -(-len(x) // _MAX_POINTS)
    x, y = x[::step], y[::step]
    if _stripes(ink) < -_STANDING:
        # Seen along the columns, what leans clockwise leans the other way.
        return Lean(standing=True, degrees=0.0 - _angle(y, x))
    return Lean(degrees=_angle(x, y))


def _ink(grey: Grey) -> _Ink:
    """Marks what differs from the paper, dark or bright, on a small copy."""
    image = Image.fromarray(grey)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    small = np.asarray(image, np.int16)
    contrast = np.abs(small - np.median(small))
    ink: _Ink = contrast > max(24.0, float(np.percentile(contrast, 99.5)) / 2)
    return ink


def _stripes(ink: _Ink) -> float:
    """Returns how much more a picture changes downwards than sideways, as a logarithm.

    Of all distances, the one from which that is clearest; 0 if there is none.
    """
    clearest = 0.0
    for side in _DISTANCES:
        blurred = np.pad(_blurred(ink, side), 1)
        downwards = float(np.square(np.diff(blurred, axis=0)).sum())
        sideways = float(np.square(np.diff(blurred, axis=1)).sum())
        clearest = max(clearest, math.log(downwards / sideways), key=abs)
    return clearest


def _blurred(ink: _Ink, side: int) -> NDArray[np.float64]:
    """Returns the share of ink in each square."""
    height, width = (-(-length // side) for length in ink.shape)
    whole = np.pad(ink, ((0, height * side - ink.shape[0]), (0, width * side - ink.shape[1])))
    shares: NDArray[np.float64] = whole.reshape(height, side, width, side).mean((1, 3))
    return shares


def _angle(x: _Points, y: _Points) -> float:
    """Returns the angle at which rows are sharpest; 0 if they are hardly sharper than level."""
    steps = round(MOST / _COARSE)
    _, near = max((_sharpness(x, y, _COARSE * step), _COARSE * step) for step in _around(steps))
    steps = round(_COARSE / _FINE)
    fine = [near + _FINE * step for step in _around(steps)]
    best, exact = max((_sharpness(x, y, angle), angle) for angle in fine)
    if not LEAST <= abs(exact) < MOST or best < _GAIN * _sharpness(x, y, 0.0):
        return 0.0
    return round(exact, 1)


def _around(steps: int) -> range:
    return range(-steps, steps + 1)


def _sharpness(x: _Points, y: _Points, degrees: float) -> float:
    """Returns how much rows that lean so differ from the next, by their ink; 0 or more."""
    rows = np.rint(y - x * math.tan(math.radians(degrees))).astype(np.intp)
    ink = np.bincount(rows - rows.min()).astype(np.float64)
    return float(np.square(np.diff(ink, prepend=0.0, append=0.0)).sum() / np.square(ink).sum())
