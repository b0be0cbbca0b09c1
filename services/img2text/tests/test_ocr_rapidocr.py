"""RapidOCR's networks read a page, and stop when they are told to."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from atrium_common.catalogue import Catalogue, CatalogueError
from atrium_common.domain import Capability
from atrium_common.errors import InvalidArgument, MediaError
from atrium_common.weights import WeightStore
from atrium_img2text.engines.base import ReadingEngine
from atrium_img2text.engines.rapidocr import RapidOcrEngine
from atrium_img2text.reading import PageImage, PageLayout, ReadingOrder
from atrium_img2text.testing.pages import (
    character_error_rate,
    german,
    noisy,
    share_of_words_found,
    turned,
)

ROOT = Path(__file__).resolve().parents[3]
STORE = WeightStore(ROOT / ".atrium" / "models")
ENTRY = Catalogue.load(ROOT / "models" / "gpu.yaml").resolve(
    "rapidocr", Capability.OCR, service="img2text"
)

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[RapidOcrEngine]:
    """The model of the GPU catalogue; it runs on the processor."""
    made = RapidOcrEngine([ENTRY], store=STORE)
    await made.load()
    yield made
    await made.close()


async def test_a_page_is_read_with_its_boxes(engine: RapidOcrEngine) -> None:
    """In a language that nobody named, turned by a quarter."""
    assert isinstance(engine, ReadingEngine)
    truth = turned(german(), 90.0)
    page = await engine.read(truth.image(), ReadingOrder(model="rapidocr"))
    assert character_error_rate(truth.text, page.text) <= 0.01
    assert share_of_words_found(truth, page) >= 0.9
    assert (page.languages, page.script, page.rotation) == (["de"], "Latn", -90.0)


async def test_an_upside_down_page_is_turned(engine: RapidOcrEngine) -> None:
    """Where nothing can be read at first."""
    line = PageImage(
        number=1, pixels=np.ascontiguousarray(noisy().pixels[110:260, :420][::-1, ::-1])
    )
    order = ReadingOrder(model="rapidocr", languages=("eng",))
    page = await engine.read(line, order)
    assert page.text.startswith("The northern hall is closed")
    assert (page.languages, page.rotation) == (["en"], 180.0)
    first, last = page.lines[0].words[0].box, page.lines[0].words[-1].box
    assert first.x > last.x


@pytest.mark.parametrize("size", [(1, 1), (3000, 9), (9, 3000), (300, 200)])
async def test_an_empty_page_has_no_lines(engine: RapidOcrEngine, size: tuple[int, int]) -> None:
    """Of whatever size."""
    page = PageImage(number=1, pixels=np.full((size[1], size[0], 3), 255, np.uint8))
    read = await engine.read(page, ReadingOrder(model="rapidocr"))
    assert (read.lines, read.confidence, read.languages) == ([], 0.0, [])


async def test_what_it_does_not_offer_is_refused(engine: RapidOcrEngine) -> None:
    """Languages in other letters, and layouts of one line, by name."""
    assert {"deu", "eng", "jpn", "zho"} <= set(engine.languages("rapidocr"))
    with pytest.raises(InvalidArgument) as e:
        engine.check_reading(ReadingOrder(model="rapidocr", languages=("eng", "rus")))
    assert e.value.field == "languages[1]"
    with pytest.raises(InvalidArgument) as e:
        engine.check_reading(ReadingOrder(model="rapidocr", layout=PageLayout.SINGLE_WORD))
    assert e.value.field == "layout"
    with pytest.raises(CatalogueError, match="sources"):
        RapidOcrEngine([ENTRY.model_copy(update={"sources": ()})], store=STORE)


async def test_a_page_that_takes_too_long_is_broken_off(
    engine: RapidOcrEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between lines; the reason is the page's time."""
    known = engine._models["rapidocr"]
    hurried = known.options.model_copy(update={"page_seconds": 0.05})
    monkeypatch.setattr(known, "options", hurried)
    with pytest.raises(MediaError) as e:
        await engine.read(noisy().image(), ReadingOrder(model="rapidocr"))
    assert e.value.reason == "PAGE_TIMEOUT"
