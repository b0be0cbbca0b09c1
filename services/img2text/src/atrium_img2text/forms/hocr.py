"""hOCR 1.2: HTML that says where every word stands. `form.py` opens it.

Elements: ocr_page, ocr_carea (a block), ocr_par, ocr_line, ocrx_word. Confidence is in whole
percent, because many readers take nothing else.

Source: http://kba.github.io/hocr-spec/1.2/.
"""

from collections.abc import Sequence
from typing import BinaryIO

from atrium_img2text.forms.words import around, blocks, spaced
from atrium_img2text.forms.xml import decimal, escape, language_attribute
from atrium_img2text.reading import Box, Line, Page, PageImage

_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml">
<head>
<title>Text</title>
<meta charset="utf-8"/>
<meta name="ocr-system" content="Atrium"/>
<meta name="ocr-capabilities" content="ocr_page ocr_carea ocr_par ocr_line ocrx_word \
ocrp_lang ocrp_wconf"/>
</head>
<body>
"""
_TAIL = "</body>\n</html>\n"


class HocrWriter:
    """hOCR as XHTML, which parsers of HTML and of XML read alike."""

    media_type = "text/vnd.hocr+html"

    def __init__(self, file: BinaryIO) -> None:
        """Writes to `file`."""
        self._file = file

    def begin(self) -> None:
        """Writes the head."""
        self._file.write(_HEAD.encode())

    def add(self, page: Page, image: PageImage) -> None:
        """Writes a page."""
        self._file.write("".join(_page(page, image)).encode())

    def end(self) -> None:
        """Writes the tail."""
        self._file.write(_TAIL.encode())


def _page(page: Page, image: PageImage) -> Sequence[str]:
    facts = [_bbox(Box(0, 0, page.width, page.height)), f"ppageno {page.number - 1}"]
    if image.resolution is not None:
        facts.append(f"scan_res {image.resolution} {image.resolution}")
    language = language_attribute("lang", page.languages)
    parts = [
        f'<div class="ocr_page" id="page_{page.number}"{language} title="{"; ".join(facts)}">\n'
    ]
    for number, block in enumerate(blocks(page), 1):
        title = _bbox(around(line.box for lines in block for line in lines))
        parts.append(f'<div class="ocr_carea" id="block_{page.number}_{number}" title="{title}">\n')
        for lines in block:
            title = _bbox(around(line.box for line in lines))
            parts.append(f'<p class="ocr_par" title="{title}">\n')
            parts += [_line(line, page.rotation) for line in lines]
            parts.append("</p>\n")
        parts.append("</div>\n")
    parts.append("</div>\n")
    return parts


def _line(line: Line, rotation: float) -> str:
    # By how much the text is turned counter-clockwise is how much the page was turned back.
    angle = f"; textangle {decimal(rotation)}" if rotation else ""
    words = []
    for word, space in spaced(line):
        title = f"{_bbox(word.box)}; x_wconf {round(100 * word.confidence)}"
        text = escape(word.text)
        words.append(f'<span class="ocrx_word" title="{title}">{text}</span>{" " if space else ""}')
    return f'<span class="ocr_line" title="{_bbox(line.box)}{angle}">{"".join(words)}</span>\n'


def _bbox(box: Box) -> str:
    return f"bbox {box.x} {box.y} {box.x + box.width} {box.y + box.height}"
