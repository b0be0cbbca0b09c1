"""The PDF looks like the pages, and its text is found where it is seen, by two readers."""

import io
import math
from collections.abc import Iterator

import numpy as np
import pypdf
import pypdfium2
import pypdfium2.raw as pdfium
import pytest

from atrium_common.images import Pixels
from atrium_common.testing.pictures import gradient
from atrium_img2text.forms import open_form
from atrium_img2text.reading import Box, DocumentFormat, Line, Page, PageImage, Word

WIDTH, HEIGHT, RESOLUTION = 1000, 800, 100
PIXEL = 72 / RESOLUTION
WHITE = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)

SCRIPTS = {
    "umlauts": ["Größe über", "Straße"],
    "accents": ["naïve cœur", "señor Ångström"],
    "greek": ["Ελληνικά και"],
    "cyrillic": ["Съешь ещё"],
    "japanese": ["日本語の文"],
    "beyond": ["𠀀𠀁 😀"],
    "hebrew": ["שלום עולם"],
    "arabic": ["مرحبا بالعالم"],
    "mixed": ["العدد 123"],
    "markup": ["(a) <b> \\c %d /e"],
}


def line(text: str, y: int) -> Line:
    """A line whose words are 20 pixels a character wide; from the right if it is read so."""
    parts = text.split(" ")
    backwards = any("֐" <= character <= "ۿ" for character in text)
    words, left = [], 100
    for part in reversed(parts) if backwards else parts:
        words.append(Word(part, Box(left, y, 20 * len(part), 30), 0.9))
        left += 20 * len(part) + 15
    held = words[::-1] if backwards else words
    return Line(text=text, box=Box(100, y, left - 115, 30), confidence=0.9, words=held)


def pdf_of(*pages: Page, pixels: Pixels = WHITE, resolution: int | None = RESOLUTION) -> bytes:
    with open_form(DocumentFormat.PDF) as form:
        for page in pages:
            form.add(page, PageImage(number=page.number, pixels=pixels, resolution=resolution))
        return form.finish().file.read()


def page_of(*lines: Line, rotation: float = 0.0) -> Page:
    return Page(number=1, lines=lines, width=WIDTH, height=HEIGHT, rotation=rotation)


def characters(data: bytes) -> Iterator[tuple[str, tuple[float, float, float, float]]]:
    """What pdfium finds on the first page: characters and their boxes, in pixels."""
    text = pypdfium2.PdfDocument(data)[0].get_textpage()
    for index in range(text.count_chars()):
        left, lower, right, upper = (side / PIXEL for side in text.get_charbox(index))
        code = pdfium.FPDFText_GetUnicode(text, index)
        yield chr(code), (left, HEIGHT - upper, right, HEIGHT - lower)


def text_of(data: bytes) -> str:
    """What pdfium extracts of the first page, lines divided by newlines."""
    text = pypdfium2.PdfDocument(data)[0].get_textpage().get_text_bounded()
    return "\n".join(row.strip() for row in text.split("\r\n"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_text_is_found_as_it_was_read(script: str) -> None:
    texts = SCRIPTS[script]
    data = pdf_of(page_of(*(line(text, 100 + 60 * row) for row, text in enumerate(texts))))
    assert text_of(data) == "\n".join(texts)
    found = pypdf.PdfReader(io.BytesIO(data)).pages[0].extract_text()
    # pypdf puts spaces where it thinks there are some.
    assert found.replace(" ", "").split() == [text.replace(" ", "") for text in texts]


def test_pages_and_lines_stay_in_their_order() -> None:
    lines = [line("right column", 500), line("left column", 100), line("below", 700)]
    pages = [page_of(*lines), Page(number=2, lines=[], width=WIDTH, height=HEIGHT)]
    data = pdf_of(*pages, page_of(line("the end", 40)))
    reader = pypdf.PdfReader(io.BytesIO(data), strict=True)
    read = [" ".join(page.extract_text().split()) for page in reader.pages]
    assert read == ["right column left column below", "", "the end"]
    assert text_of(data) == "right column\nleft column\nbelow"


def test_each_character_lies_in_the_box_of_its_word() -> None:
    one = line("Every word has its place", 200)
    found = [(name, box) for name, box in characters(pdf_of(page_of(one))) if not name.isspace()]
    expected = [(name, word.box) for word in one.words for name in word.text]
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (_, (left, upper, right, lower)), (_, box) in zip(found, expected, strict=True):
        assert box.x - 1 <= left < right <= box.x + box.width + 1
        assert (round(upper), round(lower)) == (box.y, box.y + box.height)


@pytest.mark.parametrize("rotation", [0, 3, -3, 7, 45, 90, -90, 93, 180, -170])
def test_text_is_turned_as_the_page_is(rotation: float) -> None:
    page, centres = _turned(rotation)
    data = pdf_of(page)
    assert text_of(data).split() == " ".join(one.text for one in page.lines).split()
    found = characters(data)
    for word, (x, y) in centres:
        boxes = []
        for expected in word:
            name, box = next(pair for pair in found if not pair[0].isspace())
            assert name == expected
            boxes.append(box)
        left, upper, right, lower = (
            function(side)
            for function, side in zip((min, min, max, max), zip(*boxes, strict=True), strict=True)
        )
        assert math.dist(((left + right) / 2, (upper + lower) / 2), (x, y)) < 8


def _turned(rotation: float) -> tuple[Page, list[tuple[str, tuple[float, float]]]]:
    """A page of three lines that was turned, and where the middle of each word then is."""
    cosine, sine = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))

    def on_page(along: float, down: float) -> tuple[float, float]:
        return (
            WIDTH / 2 + along * cosine + down * sine,
            HEIGHT / 2 - along * sine + down * cosine,
        )

    lines, centres = [], []
    for row in range(3):
        words = []
        for text, along, width in (("Turned", -300, 150), ("line", -130, 80), (f"{row}", -30, 20)):
            down = -100 + 60 * row
            corners = [on_page(along + x, down + y) for x in (0, width) for y in (0, 24)]
            left, upper = (math.floor(min(side)) for side in zip(*corners, strict=True))
            right, lower = (math.ceil(max(side)) for side in zip(*corners, strict=True))
            words.append(Word(text, Box(left, upper, right - left, lower - upper), 0.9))
            centres.append((text, on_page(along + width / 2, down + 12)))
        joined = " ".join(word.text for word in words)
        lines.append(Line(text=joined, box=words[0].box, confidence=0.9, words=words))
    return page_of(*lines, rotation=rotation), centres


def test_only_the_picture_is_seen() -> None:
    picture = gradient(WIDTH, HEIGHT)
    data = pdf_of(page_of(line("nothing of this is seen", 300)), pixels=picture)
    shown = pypdfium2.PdfDocument(data)[0].render(scale=1 / PIXEL, rev_byteorder=True).to_numpy()
    assert shown.shape == picture.shape
    assert np.abs(shown.astype(int) - picture).mean() < 2


@pytest.mark.parametrize(
    ("rotation", "size"), [(0, (720, 576)), (-2, (720, 576)), (90, (576, 720)), (-90, (576, 720))]
)
def test_a_page_is_shown_upright_and_as_large_as_it_was(
    rotation: float, size: tuple[int, int]
) -> None:
    data = pdf_of(page_of(rotation=rotation))
    assert pypdfium2.PdfDocument(data)[0].get_size() == size


def test_a_picture_without_resolution_has_a_size_that_viewers_take() -> None:
    page = Page(number=1, lines=[], width=30_000, height=10)
    data = pdf_of(page, pixels=np.full((10, 30_000, 3), 255, np.uint8), resolution=None)
    assert pypdf.PdfReader(io.BytesIO(data), strict=True).pages[0].mediabox.width == 10_800
    data = pdf_of(page, pixels=np.full((10, 30_000, 3), 255, np.uint8), resolution=50)
    assert pypdf.PdfReader(io.BytesIO(data), strict=True).pages[0].mediabox.width == 14_400
