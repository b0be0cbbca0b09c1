"""Forms are what their names say, by parsers that others wrote, and grow on disk."""

import io
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from alto_tools import alto_tools
from hocr_tools_lib.tools.hocr_check import Checker

from atrium_img2text.forms import open_form
from atrium_img2text.forms.words import spaced
from atrium_img2text.reading import Box, DocumentFormat, Line, Page, PageImage, Word

BLANK = np.full((400, 600, 3), 255, np.uint8)
MEDIA_TYPES = {
    DocumentFormat.TEXT: "text/plain; charset=utf-8",
    DocumentFormat.TSV: "text/tab-separated-values; charset=utf-8",
    DocumentFormat.HOCR: "text/vnd.hocr+html",
    DocumentFormat.ALTO: "application/xml",
    DocumentFormat.PDF: "application/pdf",
}


def line(text: str, x: int, y: int, *, paragraph: int = 0, block: int = 0) -> Line:
    """A line whose words are 20 pixels a character wide, and 30 high."""
    words, left = [], x
    for part in text.split(" "):
        words.append(Word(part, Box(left, y, 20 * len(part), 30), 0.9))
        left += 20 * len(part) + 20
    box = Box(x, y, left - 20 - x, 30)
    return Line(text=text, box=box, confidence=0.9, words=words, paragraph=paragraph, block=block)


PAGES = [
    Page(
        number=1,
        lines=[
            line("Straße & <Gärten>", 40, 40),
            line("second line", 40, 80),
            line("other paragraph", 40, 160, paragraph=1),
            line("other block", 40, 300, paragraph=2, block=1),
        ],
        width=600,
        height=400,
        script="Latn",
        languages=["de", "en"],
        confidence=0.9,
    ),
    Page(number=2, lines=[], width=600, height=400),
    Page(number=4, lines=[line("last page", 10, 10)], width=600, height=400, rotation=-1.5),
]


def form_of(pages: Sequence[Page], format: DocumentFormat, folder: Path | None = None) -> bytes:
    with open_form(format, folder) as form:
        for page in pages:
            form.add(page, PageImage(number=page.number, pixels=BLANK, resolution=200))
        written = form.finish()
        assert written.media_type == MEDIA_TYPES[format]
        data = written.file.read()
    assert len(data) == written.size
    return data


def test_text_has_lines_paragraphs_and_pages() -> None:
    assert form_of(PAGES, DocumentFormat.TEXT).decode() == (
        "Straße & <Gärten>\nsecond line\n\nother paragraph\n\nother block\n\f\flast page\n"
    )


def test_tsv_has_a_line_per_word() -> None:
    rows = form_of(PAGES, DocumentFormat.TSV).decode().split("\n")
    assert rows[0].split("\t")[-1] == "text"
    assert rows[2].split("\t") == ["1", "0", "0", "0", "1", "180", "40", "20", "30", "0.9000", "&"]
    assert rows[-2].split("\t")[0] == "4"
    assert rows[-1] == ""


def test_hocr_holds_by_hocr_check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "pages.html"
    file.write_bytes(form_of(PAGES, DocumentFormat.HOCR))
    checker = Checker(file)
    checker.check()
    checks = capsys.readouterr().err.splitlines()
    assert checker.test_counter == len(checks) > 15
    assert [check for check in checks if not check.startswith("ok ")] == []
    classes = checker.doc.xpath("//@class")
    assert [classes.count(f"ocr_{name}") for name in ("page", "carea", "par", "line")] == [
        *(3, 3, 4, 5)
    ]
    first = checker.doc.xpath("//*[@class='ocr_page']")[0]
    assert first.get("title") == "bbox 0 0 600 400; ppageno 0; scan_res 200 200"
    assert first.get("lang") == "de"
    assert "textangle -1.5" in checker.doc.xpath("//*[@class='ocr_line']")[-1].get("title")


def test_alto_is_read_by_alto_tools(capsys: pytest.CaptureFixture[str]) -> None:
    _, xml, namespace = alto_tools.alto_parse(io.BytesIO(form_of(PAGES, DocumentFormat.ALTO)))
    assert namespace == "http://www.loc.gov/standards/alto/ns-v4#"
    alto_tools.alto_text(xml, namespace)
    read = [row.strip() for row in capsys.readouterr().out.strip().split("\n")]
    assert read == [one.text for page in PAGES for one in page.lines]
    tags = [element.tag.removeprefix(f"{{{namespace}}}") for element in xml.iter()]
    assert [tags.count(name) for name in ("Page", "ComposedBlock", "TextBlock", "TextLine")] == [
        *(3, 3, 4, 5)
    ]


@pytest.mark.parametrize("format", DocumentFormat)
def test_its_file_is_gone_when_it_is_closed(format: DocumentFormat, tmp_path: Path) -> None:
    form_of(PAGES, format, tmp_path)
    unfinished = open_form(format, tmp_path)
    unfinished.close()
    unfinished.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", DocumentFormat)
def test_memory_holds_one_page_at_a_time(format: DocumentFormat) -> None:
    side = 2000
    page = Page(number=1, lines=PAGES[0].lines, width=side, height=side)
    tracemalloc.start()
    try:
        with open_form(format) as form:
            for number in range(1, 21):
                pixels = np.full((side, side, 3), 200, np.uint8)
                form.add(page, PageImage(number=number, pixels=pixels))
            form.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * pixels.nbytes


@pytest.mark.parametrize(
    ("text", "words", "spaces"),
    [
        ("two words", ["two", "words"], [True, False]),
        ("日本語", ["日本", "語"], [False, False]),
        ("日本 go 語", ["日本", "go", "語"], [True, True, False]),
        ("a a a", ["a", "a", "a"], [True, True, False]),
        ("other than these", ["some", "words"], [True, False]),
        ("", [], []),
    ],
)
def test_spaces_are_where_the_line_has_them(
    text: str, words: list[str], spaces: list[bool]
) -> None:
    box = Box(0, 0, 1, 1)
    held = [Word(word, box, 1) for word in words]
    one = Line(text=text, box=box, confidence=1, words=held)
    assert [space for _, space in spaced(one)] == spaces
