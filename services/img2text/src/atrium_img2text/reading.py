"""What is read out of pages: how it is asked for, and pages of lines of words in boxes.

`convert.py` makes the orders, `documents/` opens uploads into page images, the engines in
`engines/` read these, and `forms/` writes what they read as whole documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from atrium_common.images import Pixels

DEFAULT_PAGES = 20
DEFAULT_RESOLUTION = 200


class PageLayout(StrEnum):
    """How a page is laid out, which decides where lines are looked for."""

    AUTO = "auto"
    SINGLE_COLUMN = "single_column"
    SINGLE_BLOCK = "single_block"
    SINGLE_LINE = "single_line"
    SINGLE_WORD = "single_word"
    SPARSE = "sparse"


class DocumentFormat(StrEnum):
    """Whole-document forms of what was read."""

    TEXT = "text"
    HOCR = "hocr"
    TSV = "tsv"
    ALTO = "alto"
    PDF = "pdf"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingOrder:
    """Everything that decides how text is read.

    Attributes:
        model: Catalogue id.
        languages: ISO 639-3 codes, the most frequent first, at most 8; none detects them.
        layout: Where lines are looked for.
        correct_orientation: Whether turned and skewed pages are read upright.
        form: The whole-document form to write as well, if any.
        first_page: First page to read, from 1.
        max_pages: Most pages to read, 1 or more.
        resolution: Pixels per inch at which pages of a PDF are drawn, 72 to 600.
        min_confidence: Words under it are left out, 0 to 1.
    """

    model: str
    languages: Sequence[str] = ()
    layout: PageLayout = PageLayout.AUTO
    correct_orientation: bool = True
    form: DocumentFormat | None = None
    first_page: int = 1
    max_pages: int = DEFAULT_PAGES
    resolution: int = DEFAULT_RESOLUTION
    min_confidence: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PageImage:
    """A page as it was uploaded, or drawn of a PDF.

    Attributes:
        number: Which page of the document, from 1.
        pixels: Shape (height, width, 3), sRGB, opaque.
        resolution: Pixels per inch, if the file says so or it was drawn; else ``None``.
    """

    number: int
    pixels: Pixels
    resolution: int | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the page as it was uploaded; its origin is upper left.

    Attributes:
        x: Left edge, 0 or more.
        y: Upper edge, 0 or more.
        width: 1 or more.
        height: 1 or more.
    """

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Word:
    """A word: its text, where it stands, and how sure the engine is, 0 to 1."""

    text: str
    box: Box
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line.

    Attributes:
        text: Its words joined by spaces, as the script has it.
        box: Where it stands.
        confidence: Mean of its words', 0 to 1.
        words: In reading order.
        block: Which block of the page it belongs to, from 0.
        paragraph: Which paragraph of the page, from 0.
    """

    text: str
    box: Box
    confidence: float
    words: Sequence[Word]
    block: int = 0
    paragraph: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page that was read.

    Attributes:
        number: Which page of the document, from 1.
        lines: In reading order.
        width: Of the page as it was uploaded, in pixels.
        height: As width.
        rotation: Degrees by which it was turned clockwise to stand upright, -180 to 180.
        script: ISO 15924, e.g. ``"Latn"``; ``""`` if unknown.
        languages: Read or detected, the likeliest first: the shortest ISO 639 code of each.
        confidence: Mean of its words', 0 to 1; 0 for a page without text.
        inference: The time that reading it took.
    """

    number: int
    lines: Sequence[Line]
    width: int
    height: int
    rotation: float = 0.0
    script: str = ""
    languages: Sequence[str] = ()
    confidence: float = 0.0
    inference: timedelta = timedelta()

    @property
    def text(self) -> str:
        """Lines divided by newlines, paragraphs by empty lines."""
        parts: list[str] = []
        before: Line | None = None
        for line in self.lines:
            if before is not None:
                parts.append("\n" if line.paragraph == before.paragraph else "\n\n")
            parts.append(line.text)
            before = line
        return "".join(parts)


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """What is known once a document is opened: its pages and its media type by its content."""

    pages: int
    content_type: str
