"""Plain text and tab-separated values. `form.py` opens them."""

from typing import BinaryIO

from atrium_img2text.forms.words import clean
from atrium_img2text.reading import Page, PageImage

HEADER = (
    "page",
    "block",
    "paragraph",
    "line",
    "word",
    "x",
    "y",
    "width",
    "height",
    "confidence",
    "text",
)
"""Columns of the TSV: pages count from 1 as in the document, blocks and paragraphs from 0 as
in the page, lines from 0 within their page, words from 0 within their line. The box is in
pixels, the confidence from 0 to 1."""

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class TextWriter:
    """UTF-8; lines end with newlines, pages are divided by form feeds."""

    media_type = "text/plain; charset=utf-8"

    def __init__(self, file: BinaryIO) -> None:
        """Writes to `file`."""
        self._file = file
        self._pages = 0

    def begin(self) -> None:
        """Nothing comes before the pages."""

    def add(self, page: Page, image: PageImage) -> None:
        """Writes a page's text."""
        divider = "\f" if self._pages else ""
        end = "\n" if page.lines else ""
        self._file.write(f"{divider}{clean(page.text)}{end}".encode())
        self._pages += 1

    def end(self) -> None:
        """Nothing comes after the pages."""


class TsvWriter:
    """UTF-8; a line of `HEADER`, then one per word.

    Backslash, tab, newline and carriage return in a word are written as in C.
    """

    media_type = "text/tab-separated-values; charset=utf-8"

    def __init__(self, file: BinaryIO) -> None:
        """Writes to `file`."""
        self._file = file

    def begin(self) -> None:
        """Writes the header."""
        self._write(HEADER)

    def add(self, page: Page, image: PageImage) -> None:
        """Writes a page's words."""
        for number, line in enumerate(page.lines):
            for index, word in enumerate(line.words):
                box = word.box
                place = (page.number, line.block, line.paragraph, number, index)
                sides = (box.x, box.y, box.width, box.height)
                text = clean(word.text).translate(_ESCAPES)
                self._write((*map(str, place + sides), f"{word.confidence:.4f}", text))

    def end(self) -> None:
        """Nothing comes after the words."""

    def _write(self, row: tuple[str, ...]) -> None:
        self._file.write(("\t".join(row) + "\n").encode())
