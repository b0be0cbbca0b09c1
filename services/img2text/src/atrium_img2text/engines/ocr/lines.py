"""Words to lines, and lines to a page in the domain's terms."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import groupby
from statistics import fmean

from atrium_img2text.engines.ocr.recognizer import FoundWord
from atrium_img2text.engines.ocr.scripts import join_words, script_of_text
from atrium_img2text.engines.ocr.upright import View
from atrium_img2text.languages import shortest
from atrium_img2text.reading import Box, Line, Page, Word


def page_of(
    words: Sequence[FoundWord],
    view: View,
    *,
    number: int,
    languages: Sequence[str],
    min_confidence: float,
    inference: timedelta,
) -> Page:
    """Puts what was found together, with boxes on the page as it was uploaded.

    Args:
        words: In reading order.
        view: In which they were found.
        number: Of the page, from 1.
        languages: Read or detected, ISO 639-3.
        min_confidence: Words under it are left out.
        inference: The time that it took.
    """
    kept = [word for word in words if word.confidence >= min_confidence]
    lines = [_line(list(group), view) for _, group in groupby(kept, key=lambda word: word.line)]
    return Page(
        number=number,
        lines=lines,
        width=view.page.width,
        height=view.page.height,
        rotation=view.rotation,
        script=script_of_text("".join(word.text for word in kept)),
        languages=[shortest(code) for code in languages],
        confidence=fmean(word.confidence for word in kept) if kept else 0.0,
        inference=inference,
    )


def around(boxes: Sequence[Box]) -> Box:
    """Returns the box around one or more boxes."""
    left, top = min(box.x for box in boxes), min(box.y for box in boxes)
    right = max(box.x + box.width for box in boxes)
    bottom = max(box.y + box.height for box in boxes)
    return Box(left, top, right - left, bottom - top)


def _line(found: Sequence[FoundWord], view: View) -> Line:
    words = [
        Word(word.text, view.box(word.left, word.top, word.right, word.bottom), word.confidence)
        for word in found
    ]
    return Line(
        text=join_words([word.text for word in words]),
        box=around([word.box for word in words]),
        confidence=fmean(word.confidence for word in words),
        words=words,
        block=found[0].block,
        paragraph=found[0].paragraph,
    )
