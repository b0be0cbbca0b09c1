"""Where each word of a page is put, so that its invisible text lies on what is seen.

`pdf.py` calls this. Boxes are upright even where the text is not, because they are in pixels
of the page as it was uploaded; the page says by how much it was turned to be read, so the
slanting rectangle in each box is found again, and the text is written along it.
"""

import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from atrium_img2text.forms.words import clean, spaced
from atrium_img2text.reading import Box, Line, Page

_CLEAR = 0.3
"""How far from 45 degrees (as the cosine of twice the angle) a slanting rectangle is told
from its upright box; nearer, one box fits many."""
_SPACE = 0.25
"""Width of the space that ends a line, in heights of the line. Without it, some programs
join the last word to the next line where lines stand upright."""

# Classes of characters by UAX #9.
_RIGHT_TO_LEFT = frozenset({"R", "AL"})
_LEFT_TO_RIGHT = frozenset({"L", "EN", "AN"})


@dataclass(frozen=True, slots=True)
class PlacedText:
    """A piece of text.

    Attributes:
        text: A word, or the space after it.
        x: Where its lower left corner is, in pixels from the page's left edge.
        y: As x, from the lower edge.
        size: Height of the line.
        stretch: How wide the text is, in pixels.
        cosine: Of the angle by which its line is turned counter-clockwise.
        sine: As cosine.
    """

    text: str
    x: float
    y: float
    size: float
    stretch: float
    cosine: float
    sine: float


@dataclass(frozen=True, slots=True)
class _Laid:
    """A word's rectangle along its line: start, width, upper and lower edge."""

    start: float
    width: float
    upper: float
    lower: float


def placed(page: Page) -> Iterator[PlacedText]:
    """Yields the words of a page and the spaces between them, in reading order."""
    angle = math.radians(page.rotation)
    for line in page.lines:
        if line.words:
            yield from _placed(line, page.height, math.cos(angle), math.sin(angle))


def _placed(line: Line, height: int, cosine: float, sine: float) -> Iterator[PlacedText]:
    laid = [_laid(word.box, cosine, sine) for word in line.words]
    # One height for the whole line: programs take words of several for several lines.
    upper, lower = min(one.upper for one in laid), max(one.lower for one in laid)

    def piece(text: str, start: float, width: float) -> PlacedText:
        x = start * cosine + lower * sine
        y = height - (lower * cosine - start * sine)
        return PlacedText(text, x, y, lower - upper, width, cosine, sine)

    for number, (word, space) in enumerate(spaced(line)):
        one = laid[number]
        yield piece(_as_seen(clean(word.text)), one.start, one.width)
        if space:
            start, end = _between(one, laid[number + 1])
            yield piece(" ", start, max(1.0, end - start))
    yield piece(" ", laid[-1].start + laid[-1].width, _SPACE * (lower - upper))


def _between(one: _Laid, other: _Laid) -> tuple[float, float]:
    """Where the gap between two words is, whichever of them is further left."""
    left, right = sorted((one, other), key=lambda laid: laid.start)
    return left.start + left.width, right.start


def _as_seen(text: str) -> str:
    """Returns the characters of a word from left to right.

    Programs that read PDFs take the order on the page, and turn what is written from right
    to left themselves.
    """
    kinds = [unicodedata.bidirectional(character) for character in text]
    if not any(kind in _RIGHT_TO_LEFT for kind in kinds):
        return text
    runs = groupby(zip(text, kinds, strict=True), key=lambda pair: pair[1] in _LEFT_TO_RIGHT)
    seen = []
    for forwards, pairs in runs:
        run = "".join(character for character, _ in pairs)
        seen.append(run if forwards else run[::-1])
    return "".join(reversed(seen))


def _laid(box: Box, cosine: float, sine: float) -> _Laid:
    """Turns a box into the rectangle in it that lies along the line."""
    width, height = _sides(box, abs(cosine), abs(sine))
    x, y = box.x + box.width / 2, box.y + box.height / 2
    along, across = x * cosine - y * sine, x * sine + y * cosine
    return _Laid(along - width / 2, width, across - height / 2, across + height / 2)


def _sides(box: Box, cosine: float, sine: float) -> tuple[float, float]:
    """Length along the line, and across it, of the rectangle that just fits into the box."""
    if (clear := cosine**2 - sine**2) and abs(clear) >= _CLEAR:
        width = (box.width * cosine - box.height * sine) / clear
        height = (box.height * cosine - box.width * sine) / clear
        if min(width, height) >= 1:
            return width, height
    return (box.width, box.height) if cosine >= sine else (box.height, box.width)
