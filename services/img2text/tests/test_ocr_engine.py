"""Tesseract reads six pages, and what it does with pages that are none."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tesserocr
from PIL import Image

from atrium_common.catalogue import Catalogue, CatalogueError, ModelEntry
from atrium_common.domain import Capability, ModelState
from atrium_common.errors import Conflict, InvalidArgument, MediaError, Unavailable
from atrium_common.weights import WeightStore
from atrium_img2text.engines.base import ReadingEngine
from atrium_img2text.engines.ocr.library import LibraryRecognizer
from atrium_img2text.engines.ocr.recognizer import FoundWord
from atrium_img2text.engines.tesseract import TesseractEngine
from atrium_img2text.reading import Page, PageImage, PageLayout, ReadingOrder
from atrium_img2text.testing.pages import (
    RENDERERS,
    RenderedPage,
    character_error_rate,
    german,
    invoice,
    noisy,
    prose,
    share_of_words_found,
    turned,
)

ROOT = Path(__file__).resolve().parents[3]
STORE = WeightStore(ROOT / ".atrium" / "models")
BY_PROGRAM = "by-program"

pytestmark = pytest.mark.model


def _starter() -> ModelEntry:
    catalogue = Catalogue.load(ROOT / "models" / "starter.yaml")
    return catalogue.resolve("", Capability.OCR, service="img2text")


def _also(id: str, **options: str | float) -> ModelEntry:
    return _starter().model_copy(update={"id": id, "options": options})


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[TesseractEngine]:
    """The starter's model with two workers, and the same run as a program."""
    entries = [
        _starter().model_copy(update={"options": {"workers": 2}}),
        _also(BY_PROGRAM, recognizer="program"),
    ]
    made = TesseractEngine(entries, store=STORE)
    await made.load()
    yield made
    await made.close()


def order(model: str = "tesseract", **more: object) -> ReadingOrder:
    """An order with the defaults."""
    return ReadingOrder(model=model, **more)  # type: ignore[arg-type]


def blank(width: int, height: int) -> PageImage:
    """An empty page."""
    return PageImage(number=1, pixels=np.full((height, width, 3), 255, np.uint8))


@pytest.mark.parametrize("name", RENDERERS)
async def test_a_page_is_read_with_its_boxes(engine: TesseractEngine, name: str) -> None:
    """At most 1% of characters are wrong, and boxes cover 95% of the words they name."""
    truth = RENDERERS[name]()
    page = await engine.read(truth.image(), order(layout=truth.layout))
    assert character_error_rate(truth.text, page.text) <= 0.01
    assert share_of_words_found(truth, page) >= 0.95
    assert page.rotation == pytest.approx(truth.rotation, abs=0.2)
    assert page.languages == [truth.language]
    assert page.script == "Latn"
    assert (page.height, page.width) == truth.pixels.shape[:2]
    assert page.confidence > 0.9
    assert page.inference.total_seconds() > 0


@pytest.mark.parametrize("degrees", [180.0, -93.0])
async def test_a_page_is_read_however_it_is_turned(engine: TesseractEngine, degrees: float) -> None:
    """Upside down and sideways, also with a lean; boxes are those of the page as it came."""
    truth = turned(noisy(), degrees)
    page = await engine.read(truth.image(), order())
    assert character_error_rate(truth.text, page.text) <= 0.01
    assert share_of_words_found(truth, page) >= 0.95
    assert page.rotation == pytest.approx(-degrees if degrees != 180.0 else 180.0, abs=0.2)


async def test_a_page_is_read_as_it_is_where_orientation_stays(engine: TesseractEngine) -> None:
    """Nothing is turned when that is not wanted."""
    truth = turned(noisy(), 180.0)
    page = await engine.read(truth.image(), order(languages=("eng",), correct_orientation=False))
    assert page.rotation == 0.0
    assert share_of_words_found(truth, page) < 0.1


async def test_an_upright_page_is_read_as_tesseract_reads_it(engine: TesseractEngine) -> None:
    """The same words, boxes and confidences as by Tesseract itself, in the same lines."""
    truth = prose()
    page = await engine.read(truth.image(), order(languages=("eng",)))
    with tesserocr.PyTessBaseAPI(path=f"{STORE.ensure(_starter())}/", lang="eng") as api:
        api.SetImage(Image.fromarray(truth.pixels).convert("L"))
        lines = [line.split() for line in api.GetUTF8Text().splitlines() if line.strip()]
        found = [
            (word.GetUTF8Text(tesserocr.RIL.WORD), word.BoundingBox(tesserocr.RIL.WORD))
            for word in tesserocr.iterate_level(api.GetIterator(), tesserocr.RIL.WORD)
        ]
        confidences = api.AllWordConfidences()
    words = [word for line in page.lines for word in line.words]
    assert [line.text.split() for line in page.lines] == lines
    assert [
        (word.text, (b.x, b.y, b.x + b.width, b.y + b.height))
        for word, b in ((word, word.box) for word in words)
    ] == found
    assert [int(word.confidence * 100) for word in words] == pytest.approx(confidences, abs=1)
    assert len({line.paragraph for line in page.lines}) == 3
    assert "\n\n" in page.text


async def test_words_under_the_confidence_are_left_out(engine: TesseractEngine) -> None:
    """What remains is as it was, and lines without words are gone."""
    whole = await engine.read(invoice().image(), order(languages=("eng",)))
    sure = await engine.read(invoice().image(), order(languages=("eng",), min_confidence=0.96))
    kept = [word for line in sure.lines for word in line.words]
    assert kept == [w for line in whole.lines for w in line.words if w.confidence >= 0.96]
    assert 0 < len(kept) < sum(len(line.words) for line in whole.lines)
    assert all(line.words for line in sure.lines)


@pytest.mark.parametrize("layout", PageLayout)
async def test_every_layout_is_honoured(engine: TesseractEngine, layout: PageLayout) -> None:
    """A line in its box is read by all of them."""
    truth = noisy()
    line = PageImage(number=4, pixels=truth.pixels[50:110], resolution=150)
    page = await engine.read(line, order(languages=("eng",), layout=layout))
    assert page.number == 4
    assert "museum" in page.text or layout is PageLayout.SINGLE_WORD


@pytest.mark.parametrize(
    "size", [(1, 1), (2, 30_000), (30_000, 2), (40_000, 10), (3, 3), (600, 400)]
)
async def test_an_empty_page_has_no_lines(
    engine: TesseractEngine, size: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    """Of whatever size; and nothing is said of it on stderr."""
    page = await engine.read(blank(*size), order())
    assert (page.lines, page.confidence, page.languages, page.text) == ([], 0.0, [], "")
    assert (page.width, page.height, page.rotation, page.script) == (*size, 0.0, "")
    assert capfd.readouterr().err == ""


async def test_a_language_that_is_not_installed_is_refused(engine: TesseractEngine) -> None:
    """By its place; the message names those that are."""
    assert engine.languages("tesseract") == ("deu", "eng")
    with pytest.raises(InvalidArgument, match="'xxx' is not installed; there are: deu, eng") as e:
        engine.check_reading(order(languages=("eng", "xxx")))
    assert e.value.field == "languages[1]"


@pytest.mark.parametrize("model", ["tesseract", BY_PROGRAM])
async def test_a_page_that_takes_too_long_is_refused(
    engine: TesseractEngine, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name; the next page is read."""
    known = engine._models[model]
    hurried = known.options.model_copy(update={"page_seconds": 0.02})
    with monkeypatch.context() as patch:
        patch.setattr(known, "options", hurried)
        with pytest.raises(MediaError, match=r"Page 1 took longer than 0\.02 s") as e:
            await engine.read(prose().image(), order(model))
    assert e.value.reason == "PAGE_TIMEOUT"
    page = await engine.read(noisy().image(), order(languages=("eng",)))
    assert "museum" in page.text


async def test_the_program_reads_as_the_library_does(engine: TesseractEngine) -> None:
    """The same code above it: turned pages, too."""
    truth = turned(noisy(), 90.0)
    page = await engine.read(truth.image(), order(BY_PROGRAM, languages=("eng",)))
    assert character_error_rate(truth.text, page.text) <= 0.01
    assert share_of_words_found(truth, page) >= 0.95
    assert page.rotation == -90.0
    empty = await engine.read(blank(1, 1), order(BY_PROGRAM))
    assert not empty.lines


Read = Callable[..., Sequence[FoundWord]]


def _before_each_read(monkeypatch: pytest.MonkeyPatch, wait: Callable[[], object]) -> list[str]:
    """Has every reading wait for something first; returns their threads, once they begin."""
    read: Read = LibraryRecognizer.read
    threads: list[str] = []

    def waiting(self: LibraryRecognizer, *args: object, **more: object) -> Sequence[FoundWord]:
        threads.append(threading.current_thread().name)
        wait()
        return read(self, *args, **more)

    monkeypatch.setattr(LibraryRecognizer, "read", waiting)
    return threads


async def test_two_pages_are_read_at_once(
    engine: TesseractEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each begins before the other ends, on a thread of its own; a third has no slot."""
    assert engine.scheduling.slots == 2
    threads = _before_each_read(monkeypatch, threading.Barrier(2, timeout=60).wait)
    truth = noisy()
    one, other = await asyncio.gather(
        *(engine.read(truth.image(n), order(languages=("eng",))) for n in (1, 2))
    )
    assert (one.number, other.number, one.text) == (1, 2, other.text)
    assert len(set(threads)) == 2


async def test_a_cancelled_page_is_held_until_it_is_let_go(
    engine: TesseractEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call returns when the thread is free, and no second reading begins."""
    began, release = threading.Event(), threading.Event()
    threads = _before_each_read(monkeypatch, lambda: (began.set(), release.wait(60)))
    reading = asyncio.create_task(engine.read(german().image(), order()))
    await asyncio.to_thread(began.wait, 60)
    reading.cancel()
    done, _ = await asyncio.wait({reading}, timeout=0.2)
    assert not done
    with pytest.raises(Conflict):
        await engine.unload_model("tesseract")
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert len(threads) == 1, "German is read twice where its reader stays"


async def test_a_model_comes_and_goes() -> None:
    """It says where it stands, is verified, and reads again after it was unloaded."""
    made = TesseractEngine([_starter()], store=STORE)
    assert isinstance(made, ReadingEngine)
    assert made.languages("tesseract") == ()
    await made.read(blank(9, 9), order())  # its first use loads it
    for _ in range(2):
        await made.load()
        info = made.models()[0]
        assert info.state is ModelState.READY
        assert info.verified_at is not None
        await made.unload_model("tesseract")
        assert made.models()[0].state is ModelState.UNLOADED
    await made.close()
    await made.close()
    with pytest.raises(Unavailable):
        await made.load()


async def test_a_ready_model_is_verified(engine: TesseractEngine) -> None:
    """Again, behind what is read."""
    before = engine.models()[0].verified_at
    await engine.verify("tesseract")
    after = engine.models()[0].verified_at
    assert before is not None
    assert after is not None
    assert after > before


async def test_data_files_of_the_system_are_read_too(tmp_path: Path) -> None:
    """Beside those of the entry or instead of them; an entry needs one of the two."""
    weights = STORE.ensure(_starter())
    (tmp_path / "chi_sim.traineddata").symlink_to(weights / "eng.traineddata")
    made = TesseractEngine([_also("both", tessdata_dir=str(tmp_path))], store=STORE)
    await made.load()
    assert made.languages("both") == ("deu", "eng", "zho")
    page: Page = await made.read(noisy().image(), order("both", languages=("zho", "deu")))
    assert (page.languages, page.lines != []) == (["zh", "de"], True)
    await made.close()
    bare = _starter().model_copy(update={"sources": ()})
    with pytest.raises(CatalogueError, match="tessdata_dir"):
        TesseractEngine([bare], store=STORE)
    nowhere = {"tessdata_dir": str(tmp_path / "none")}
    lost = TesseractEngine([bare.model_copy(update={"options": nowhere})], store=STORE)
    with pytest.raises(Unavailable):
        await lost.load()
    assert "none" in lost.models()[0].detail
    await lost.close()


def test_a_rendered_page_is_whole() -> None:
    """Every word's box holds ink, and its text is the words in their order."""
    pages: list[RenderedPage] = [render() for render in RENDERERS.values()]
    for page in pages:
        assert page.text.split() == [word.text for word in page.words]
        for box in (word.box for word in page.words):
            assert page.pixels[box.y : box.y + box.height, box.x : box.x + box.width].min() < 128
