"""ALTO 4: XML that libraries and archives keep text with its places in. `form.py` opens it.

A block is a ComposedBlock, a paragraph a TextBlock in it. Everything is in pixels.

Source: https://www.loc.gov/standards/alto/, schema 4.4.
"""

from collections.abc import Sequence
from typing import BinaryIO

from atrium_img2text.forms.words import around, blocks, spaced
from atrium_img2text.forms.xml import decimal, escape, language_attribute
from atrium_img2text.reading import Box, Line, Page, PageImage

_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#" SCHEMAVERSION="4.4">
<Description>
<MeasurementUnit>pixel</MeasurementUnit>
<Processing ID="processing_1">
<processingCategory>contentGeneration</processingCategory>
<processingSoftware><softwareName>Atrium</softwareName></processingSoftware>
</Processing>
</Description>
<Layout>
"""
_TAIL = "</Layout>\n</alto>\n"


class AltoWriter:
    """ALTO. The standard wants a page at least; a document without any is not valid."""

    media_type = "application/xml"

    def __init__(self, file: BinaryIO) -> None:
        """Writes to `file`."""
        self._file = file

    def begin(self) -> None:
        """Writes the description."""
        self._file.write(_HEAD.encode())

    def add(self, page: Page, image: PageImage) -> None:
        """Writes a page."""
        self._file.write("".join(_page(page)).encode())

    def end(self) -> None:
        """Closes the layout."""
        self._file.write(_TAIL.encode())


def _page(page: Page) -> Sequence[str]:
    size = f'WIDTH="{page.width}" HEIGHT="{page.height}"'
    rotation = f' ROTATION="{decimal(page.rotation)}"' if page.rotation else ""
    language = language_attribute("LANG", page.languages)
    parts = [
        f'<Page ID="page_{page.number}" PHYSICAL_IMG_NR="{page.number}" {size} '
        f'PC="{decimal(page.confidence)}"{rotation}{language}>\n'
        f'<PrintSpace HPOS="0" VPOS="0" {size}>\n'
    ]
    for number, block in enumerate(blocks(page), 1):
        name = f"block_{page.number}_{number}"
        place = _place(around(line.box for lines in block for line in lines))
        parts.append(f'<ComposedBlock ID="{name}" {place}>\n')
        for index, lines in enumerate(block, 1):
            place = _place(around(line.box for line in lines))
            parts.append(f'<TextBlock ID="{name}_{index}" {place}{rotation}>\n')
            parts += [_line(line) for line in lines if line.words]
            parts.append("</TextBlock>\n")
        parts.append("</ComposedBlock>\n")
    parts.append("</PrintSpace>\n</Page>\n")
    return parts


def _line(line: Line) -> str:
    words = []
    for word, space in spaced(line):
        words.append(
            f'<String {_place(word.box)} WC="{decimal(word.confidence)}" '
            f'CONTENT="{escape(word.text)}"/>{"<SP/>" if space else ""}'
        )
    return f"<TextLine {_place(line.box)}>{''.join(words)}</TextLine>\n"


def _place(box: Box) -> str:
    return f'HPOS="{box.x}" VPOS="{box.y}" WIDTH="{box.width}" HEIGHT="{box.height}"'
