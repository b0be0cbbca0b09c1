"""What the fake engine says and reads: texts that show what was asked for.

A word counts as one token. `engines/fake.py` calls these; nothing here waits.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import chain

from atrium_common.images import Pixels
from atrium_img2text.domain import DescriptionOrder, QuestionOrder
from atrium_img2text.languages import shortest
from atrium_img2text.reading import Box, Line, Page, PageImage, PageLayout, ReadingOrder, Word

IMAGE_TOKENS = 16
"""What a picture takes of the context."""

_LESS_SURE = 0.05
"""A word is less sure than the one before it by this."""


def shown(pixels: Pixels) -> str:
    """Says what a picture is: ``"64 x 48 pixels, mean colour #ff8000"``."""
    height, width = pixels.shape[:2]
    red, green, blue = pixels.reshape(-1, 3).mean(axis=0).round().astype(int)
    return f"{width} x {height} pixels, mean colour #{red:02x}{green:02x}{blue:02x}"


def caption_words(order: DescriptionOrder, picture: str, index: int) -> list[str]:
    """Returns the tokens of caption `index`: the picture, and what differs from the default."""
    sampling = order.sampling
    asked = {
        "after": repr(order.prefix) if order.prefix else None,
        "number": index if order.n > 1 else None,
        "seed": sampling.seed,
        "temperature": sampling.temperature,
        "beams": sampling.beams,
    }
    differs = (f"{name} {value}" for name, value in asked.items() if value is not None)
    return ", ".join((f"a picture of {picture}", *differs)).split()


def answer_words(order: QuestionOrder, picture: str) -> list[str]:
    """Returns the tokens of an answer: the question's, the picture, and what came before."""
    parts = [f"{order.question} - {picture}"]
    if order.history:
        parts.append(f"after {len(order.history)} turns, the last {order.history[-1].answer!r}")
    if order.instructions:
        parts.append(f"told {order.instructions!r}")
    return ", ".join(parts).split()


def description_tokens(order: DescriptionOrder) -> int:
    """Counts what is read before a caption is written."""
    return IMAGE_TOKENS + len(order.prefix.split())


def question_tokens(order: QuestionOrder) -> int:
    """Counts what is read before an answer is written."""
    earlier = chain.from_iterable((turn.question, turn.answer) for turn in order.history)
    texts = (order.instructions, *earlier, order.question)
    return IMAGE_TOKENS + sum(len(text.split()) for text in texts)


def page_read(
    page: PageImage, order: ReadingOrder, installed: Sequence[str], seconds: float
) -> Page:
    """Reads a page that says its number, its size and how it was to be read.

    Its first two lines are one paragraph, the third is another one. Every word is less sure
    than the one before it.
    """
    height, width = page.pixels.shape[:2]
    languages = tuple(order.languages) or ("eng" if "eng" in installed else installed[0],)
    texts = _page_texts(page, order, languages)
    lines = [line for line in _lines(texts, width, height, order.min_confidence) if line.words]
    sure = [word.confidence for line in lines for word in line.words]
    return Page(
        number=page.number,
        lines=lines,
        width=width,
        height=height,
        script="Latn",
        languages=[shortest(code) for code in languages],
        confidence=sum(sure) / len(sure) if sure else 0.0,
        inference=timedelta(seconds=seconds),
    )


def _page_texts(page: PageImage, order: ReadingOrder, languages: Sequence[str]) -> list[str]:
    height, width = page.pixels.shape[:2]
    first = f"Page {page.number} of {width} x {height} pixels"
    if order.layout is PageLayout.SINGLE_WORD:
        return first.split()[:1]
    if order.layout is PageLayout.SINGLE_LINE:
        return [first]
    turned = "upright" if order.correct_orientation else "as it is"
    return [first, f"read {turned} as {order.layout}", f"in {' '.join(languages)}"]


def _lines(texts: Sequence[str], width: int, height: int, least: float) -> Iterator[Line]:
    """Lays texts out from top to bottom, characters of equal width; words under `least` go."""
    columns = max(map(len, texts))
    sure = 1.0
    for row, text in enumerate(texts):
        words, column = [], 0
        for word in text.split():
            sure = max(0.0, round(sure - _LESS_SURE, 2))
            if sure >= least:
                across = _stretch(column, column + len(word), columns, width)
                down = _stretch(2 * row, 2 * row + 1, 2 * len(texts), height)
                words.append(Word(word, _box(across, down), sure))
            column += len(word) + 1
        if words:
            yield _line(words, paragraph=int(row > 1))


def _stretch(start: int, end: int, parts: int, length: int) -> tuple[int, int]:
    """Returns where parts of a length begin and how long they are, in whole pixels."""
    begin = min(start * length // parts, length - 1)
    return begin, max(1, end * length // parts - begin)


def _box(across: tuple[int, int], down: tuple[int, int]) -> Box:
    return Box(x=across[0], y=down[0], width=across[1], height=down[1])


def _line(words: Sequence[Word], *, paragraph: int) -> Line:
    first, last = words[0].box, words[-1].box
    return Line(
        text=" ".join(word.text for word in words),
        box=Box(first.x, first.y, last.x + last.width - first.x, first.height),
        confidence=sum(word.confidence for word in words) / len(words),
        words=words,
        paragraph=paragraph,
    )
