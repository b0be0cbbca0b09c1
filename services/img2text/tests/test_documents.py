"""Whatever is uploaded as a document opens as pages, or is refused by name and in time."""

import os
from datetime import timedelta
from pathlib import Path

import numpy as np
import psutil
import pytest
from documents_kit import assert_idle, limits, processes, written

from atrium_common.errors import MediaError
from atrium_common.images import ImageLimits
from atrium_common.testing.pictures import gradient
from atrium_img2text.documents import DocumentOpener
from atrium_img2text.forms import open_form
from atrium_img2text.reading import DocumentFormat, Page, PageImage
from atrium_img2text.testing.documents import good, line_of_text, many_pages, pdf, two_pages
from atrium_img2text.testing.hostile import TIMEOUT, hostile, strange_pdfs

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:pypdf"),
]

GOOD = good()
HOSTILE = hostile()
STRANGE = strange_pdfs()
MUCH = 200 * 1024**2
"""Bytes by which no file may make the service grow."""


@pytest.fixture
def opener() -> DocumentOpener:
    return DocumentOpener(limits())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "upload"


@pytest.mark.parametrize("name", GOOD)
async def test_documents_open_as_their_pages(opener: DocumentOpener, file: Path, name: str) -> None:
    data, pages, content_type = GOOD[name]
    written(file, data)
    async with opener.open(file) as document:
        assert (document.info.pages, document.info.content_type) == (pages, content_type)
        numbers = range(1, pages + 1)
        images = [await document.page(number, resolution=72) for number in numbers]
    assert [image.number for image in images] == list(range(1, pages + 1))
    for image in images:
        assert image.pixels.shape[2] == 3
        assert image.pixels.min() < 64 < 192 < image.pixels.max()  # something stands there
    assert_idle(opener)


@pytest.mark.parametrize("name", STRANGE)
async def test_what_viewers_open_is_opened(opener: DocumentOpener, file: Path, name: str) -> None:
    written(file, STRANGE[name])
    async with opener.open(file) as document:
        assert document.info.pages == 1
        page = await document.page(1, resolution=72)
        assert page.pixels.min() < 64
    assert_idle(opener)


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_does_harm_is_refused_by_name(file: Path, name: str) -> None:
    case = HOSTILE[name]
    seconds = 0.5 if TIMEOUT in case.reasons else 60
    opener = DocumentOpener(limits(page_time=timedelta(seconds=seconds)))
    written(file, case.data)
    before = psutil.Process().memory_info().rss
    with pytest.raises(MediaError) as refusal:
        async with opener.open(file, field="document_chunk") as document:
            await document.page(1)
    assert refusal.value.reason in case.reasons
    assert refusal.value.field == "document_chunk"
    assert psutil.Process().memory_info().rss < before + MUCH
    assert_idle(opener)


async def test_a_filled_form_is_drawn_and_nothing_is_executed(
    opener: DocumentOpener, file: Path
) -> None:
    written(file, GOOD["pdf-active"][0])
    async with opener.open(file) as document:
        page = await document.page(1, resolution=72)
        (process,) = processes()
        assert process.children() == []
    assert page.pixels[842 - 540 : 842 - 500, 72:372].min() < 64  # where the field is


async def test_a_pdf_is_drawn_at_the_resolution_asked_for(
    opener: DocumentOpener, file: Path
) -> None:
    written(file, pdf([line_of_text("hello")], box="[0 0 144 72]"))
    async with opener.open(file) as document:
        for resolution in (72, 200, 600):
            page = await document.page(1, resolution=resolution)
            assert page.pixels.shape == (resolution, 2 * resolution, 3)
            assert page.resolution == resolution


async def test_a_scan_is_drawn_with_the_pixels_that_it_has(
    opener: DocumentOpener, file: Path
) -> None:
    width, height = 1654, 230
    scan = PageImage(number=1, pixels=gradient(width, height), resolution=200)
    with open_form(DocumentFormat.PDF) as form:
        form.add(Page(number=1, lines=[], width=width, height=height), scan)
        written(file, form.finish().file.read())
    async with opener.open(file) as document:
        page = await document.page(1, resolution=200)
    assert page.pixels.shape == scan.pixels.shape
    assert np.abs(page.pixels.astype(int) - scan.pixels).mean() < 2


async def test_a_large_page_is_drawn_smaller_and_says_so(file: Path) -> None:
    written(file, pdf([line_of_text("hello")], box="[0 0 1440 1440]"))  # 20 inches a side
    async with DocumentOpener(limits(max_page_pixels=1_000_000)).open(file) as document:
        page = await document.page(1, resolution=200)
    assert page.resolution == 50
    assert page.pixels.shape == (1000, 1000, 3)
    narrow = limits(images=ImageLimits(max_side=500))
    async with DocumentOpener(narrow).open(file) as document:
        assert (await document.page(1)).pixels.shape == (500, 500, 3)


async def test_a_document_may_have_as_many_pages_as_are_allowed(file: Path) -> None:
    written(file, many_pages(5))
    opener = DocumentOpener(limits(max_document_pages=5))
    async with opener.open(file) as document:
        assert document.info.pages == 5
        for number in (0, 6):
            with pytest.raises(MediaError, match="5 pages"):
                await document.page(number)
    strict = DocumentOpener(limits(max_document_pages=4))
    with pytest.raises(MediaError) as refusal:
        async with strict.open(file):
            pass
    assert refusal.value.reason == "TOO_MANY_PAGES"
    assert_idle(strict)


async def test_a_pdf_is_no_picture(opener: DocumentOpener, file: Path) -> None:
    written(file, two_pages())
    with pytest.raises(MediaError, match="format PDF"):
        async with opener.open(file, pdf=False):
            pass


async def test_too_many_bytes_are_refused_unread(file: Path) -> None:
    written(file, two_pages())
    opener = DocumentOpener(limits(images=ImageLimits(max_bytes=100)))
    with pytest.raises(MediaError, match="more than 100 bytes"):
        async with opener.open(file):
            pass
    assert processes() == []


async def test_the_process_knows_nothing_of_the_service(
    opener: DocumentOpener, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATRIUM_SERVICE_SECRET", "do not tell")
    inheritable = os.open(__file__, os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    written(file, two_pages())
    async with opener.open(file):
        (process,) = processes()
        assert "do not tell" not in str(process.environ())
        assert process.cwd() == "/"
        assert [one.path for one in process.open_files()] == [str(file)]
    os.close(inheritable)
