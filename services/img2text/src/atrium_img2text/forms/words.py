"""What all forms need of a page: its lines in groups, boxes around them, spaces, characters."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from atrium_img2text.reading import Box, Line, Page, Word

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no place for: control characters, lone surrogates, two that are none."""
_REPLACEMENT = "\ufffd"


def clean(text: str) -> str:
    """Replaces characters that no document may hold by U+FFFD."""
    return _FORBIDDEN.sub(_REPLACEMENT, text)


def blocks(page: Page) -> Iterator[Sequence[Sequence[Line]]]:
    """Yields the blocks of a page, in reading order: each its paragraphs, these their lines."""
    for _, block in groupby(page.lines, key=lambda line: line.block):
        paragraphs = groupby(block, key=lambda line: line.paragraph)
        yield [list(lines) for _, lines in paragraphs]


def around(boxes: Iterable[Box]) -> Box:
    """Returns the smallest box around others, of which there is at least one."""
    found = list(boxes)
    left, upper = min(box.x for box in found), min(box.y for box in found)
    right = max(box.x + box.width for box in found)
    lower = max(box.y + box.height for box in found)
    return Box(left, upper, right - left, lower - upper)


def spaced(line: Line) -> Iterator[tuple[Word, bool]]:
    """Yields the words of a line, and whether a space follows before the next word.

    The line's text tells: there are scripts that divide words by nothing.
    """
    position = 0
    for number, word in enumerate(line.words):
        found = line.text.find(word.text, position)
        if found >= 0:
            position = found + len(word.text)
        last = number == len(line.words) - 1
        # Where the text does not hold the words as they are, a space does no harm.
        yield word, not last and (found < 0 or line.text[position : position + 1].isspace())
