"""Every word and box that was read stands in the form, whatever characters it is made of."""

import math
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import html

from atrium_img2text.forms import open_form
from atrium_img2text.forms.plain import HEADER
from atrium_img2text.forms.words import clean
from atrium_img2text.reading import Box, DocumentFormat, Line, Page, PageImage, Word

SIDE = 500
ALTO = "{http://www.loc.gov/standards/alto/ns-v4#}"
XHTML = "{http://www.w3.org/1999/xhtml}"

texts = st.text(st.characters(), min_size=1, max_size=12)
"""Any Unicode: controls, lone surrogates, markup, characters beyond the basic plane."""
spans = st.tuples(st.integers(0, SIDE - 1), st.integers(1, SIDE)).map(
    lambda span: (span[0], min(span[1], SIDE - span[0]))
)
boxes = st.builds(lambda x, y: Box(x[0], y[0], x[1], y[1]), spans, spans)
words = st.builds(Word, texts, boxes, st.floats(0, 1))


@st.composite
def lines(draw: st.DrawFn) -> Line:
    held = draw(st.lists(words, min_size=1, max_size=4))
    divider = draw(st.sampled_from([" ", ""]))
    return Line(
        text=divider.join(word.text for word in held),
        box=draw(boxes),
        confidence=draw(st.floats(0, 1)),
        words=held,
        block=draw(st.integers(0, 2)),
        paragraph=draw(st.integers(0, 3)),
    )


@st.composite
def documents(draw: st.DrawFn) -> list[Page]:
    return [
        Page(
            number=number,
            lines=draw(st.lists(lines(), max_size=4)),
            width=SIDE,
            height=SIDE,
            rotation=draw(st.sampled_from([0.0, 90.0, -2.5])),
            languages=draw(st.sampled_from([["en"], ["deu", "en"], []])),
            confidence=draw(st.floats(0, 1)),
        )
        for number in range(1, draw(st.integers(1, 3)) + 1)
    ]


def form_of(pages: list[Page], format: DocumentFormat) -> bytes:
    blank = np.full((SIDE, SIDE, 3), 255, np.uint8)
    with open_form(format) as form:
        for page in pages:
            form.add(page, PageImage(number=page.number, pixels=blank, resolution=200))
        written = form.finish()
        data = written.file.read()
    assert len(data) == written.size
    return data


def words_of(pages: list[Page]) -> Iterator[tuple[int, str, Box, float]]:
    for page in pages:
        for line in page.lines:
            for word in line.words:
                yield page.number, clean(word.text), word.box, word.confidence


def assert_same(pages: list[Page], found: list[tuple[int, str, Box, float]], digits: int) -> None:
    expected = list(words_of(pages))
    assert [one[:3] for one in found] == [one[:3] for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert math.isclose(one[3], other[3], abs_tol=0.51 * 10**-digits)


thoroughly = settings(
    max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@given(documents())
@thoroughly
def test_tsv_holds_every_word(pages: list[Page]) -> None:
    rows = form_of(pages, DocumentFormat.TSV).decode().removesuffix("\n").split("\n")
    assert tuple(rows[0].split("\t")) == HEADER
    found = []
    for row in rows[1:]:
        cells = dict(zip(HEADER, row.split("\t"), strict=True))
        box = Box(*(int(cells[side]) for side in ("x", "y", "width", "height")))
        text = _unescaped(cells["text"])
        found.append((int(cells["page"]), text, box, float(cells["confidence"])))
    assert_same(pages, found, digits=4)


@given(documents())
@thoroughly
def test_alto_holds_every_word(pages: list[Page]) -> None:
    root = ElementTree.fromstring(form_of(pages, DocumentFormat.ALTO))  # noqa: S314 - our own
    found = []
    for page in root.iter(f"{ALTO}Page"):
        for string in page.iter(f"{ALTO}String"):
            sides = ("HPOS", "VPOS", "WIDTH", "HEIGHT")
            box = Box(*(int(string.attrib[side]) for side in sides))
            number = int(page.attrib["PHYSICAL_IMG_NR"])
            found.append((number, string.attrib["CONTENT"], box, float(string.attrib["WC"])))
    assert_same(pages, found, digits=4)


@given(documents())
@thoroughly
def test_hocr_holds_every_word_for_parsers_of_xml(pages: list[Page]) -> None:
    root = ElementTree.fromstring(form_of(pages, DocumentFormat.HOCR))  # noqa: S314 - our own
    found = [
        (int(_facts(page.attrib["title"])["ppageno"]) + 1, word.text or "", *_placed(word.attrib))
        for page in root.iter(f"{XHTML}div")
        if page.attrib["class"] == "ocr_page"
        for word in page.iter(f"{XHTML}span")
        if word.attrib["class"] == "ocrx_word"
    ]
    assert_same(pages, found, digits=2)


@given(documents())
@thoroughly
def test_hocr_holds_every_word_for_parsers_of_html(pages: list[Page]) -> None:
    root = html.document_fromstring(form_of(pages, DocumentFormat.HOCR))
    found = root.xpath("//span[@class='ocrx_word']")
    assert [word.text or "" for word in found] == [text for _, text, _, _ in words_of(pages)]


def _unescaped(cell: str) -> str:
    """Undoes the escapes of the TSV."""
    parts = cell.split("\\\\")
    plain = [part.replace("\\t", "\t").replace("\\n", "\n").replace("\\r", "\r") for part in parts]
    return "\\".join(plain)


def _facts(title: str) -> dict[str, str]:
    """The properties of an hOCR element."""
    return dict(fact.strip().split(" ", 1) for fact in title.split(";"))


def _placed(attributes: dict[str, str]) -> tuple[Box, float]:
    facts = _facts(attributes["title"])
    left, upper, right, lower = map(int, facts["bbox"].split())
    return Box(left, upper, right - left, lower - upper), int(facts["x_wconf"]) / 100
