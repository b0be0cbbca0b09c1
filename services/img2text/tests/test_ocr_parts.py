"""What reading is made of: views of a page, lean, scripts, data files, workers."""

import asyncio
import math
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from atrium_common.errors import Cancelled, Unavailable
from atrium_common.images import Size
from atrium_common.work import CancelToken
from atrium_img2text.engines.ocr.lean import Lean, lean_of, level
from atrium_img2text.engines.ocr.options import TesseractOptions
from atrium_img2text.engines.ocr.program import ProgramRecognizer
from atrium_img2text.engines.ocr.recognizers import find_recognizer
from atrium_img2text.engines.ocr.scripts import (
    iso_script,
    join_words,
    script_of_language,
    script_of_text,
)
from atrium_img2text.engines.ocr.tessdata import Tessdata
from atrium_img2text.engines.ocr.upright import Grey, View, view_of
from atrium_img2text.engines.ocr.workers import Workers
from atrium_img2text.reading import Box, PageImage
from atrium_img2text.testing.pages import RENDERERS, overlap, turned

sides = st.integers(1, 400)


def view(width: int, height: int, *, max_pixels: int = 10**9) -> View:
    """A view of a white page."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    return view_of(PageImage(number=1, pixels=pixels, resolution=300), max_pixels=max_pixels)


def grey_of(page: np.ndarray) -> Grey:
    """A page in grey."""
    return np.asarray(Image.fromarray(page).convert("L"))


@given(sides, sides, st.sampled_from([0, 90, 180, -90, 2.5, -93.0]), st.data())
def test_boxes_stay_on_the_page(
    width: int, height: int, degrees: float, data: st.DataObject
) -> None:
    """However it was turned and wherever on the view they are; and they are never empty."""
    seen = view(width, height).turned(degrees)
    rows, columns = seen.grey.shape
    left, right = sorted(data.draw(st.tuples(*[st.integers(0, columns)] * 2)))
    top, bottom = sorted(data.draw(st.tuples(*[st.integers(0, rows)] * 2)))
    box = seen.box(left, top, right, bottom)
    assert box.x >= 0
    assert box.y >= 0
    assert box.width >= 1
    assert box.height >= 1
    assert box.x + box.width <= width
    assert box.y + box.height <= height


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_a_quarter_turn_is_undone_exactly(degrees: int) -> None:
    """What is marked on the page is where its box says."""
    page = np.full((60, 100, 3), 255, np.uint8)
    page[10:20, 30:70] = 0
    seen = view_of(PageImage(number=1, pixels=page), max_pixels=10**6).turned(degrees)
    rows, columns = np.nonzero(seen.grey == 0)
    box = seen.box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert box == Box(30, 10, 40, 10)
    assert seen.rotation == degrees


def test_a_huge_page_is_scaled_down() -> None:
    """To so many pixels, and to sides that Tesseract takes; resolution and boxes go along."""
    seen = view(400, 200, max_pixels=20_000)
    assert seen.grey.shape == (100, 200)
    assert seen.resolution == 150
    assert seen.box(10, 20, 30, 40) == Box(20, 40, 40, 40)
    assert max(view(64_000, 2).grey.shape) == 32_000


def test_turns_add_up() -> None:
    """To above -180, up to 180."""
    assert view(9, 9).turned(-90).turned(-90).rotation == 180.0
    assert view(9, 9).turned(177).turned(90).rotation == -93.0


@pytest.mark.parametrize("name", RENDERERS)
@pytest.mark.parametrize("degrees", [0.0, -2.0, 8.0, 90.0, 87.0])
def test_lean_is_found(name: str, degrees: float) -> None:
    """To a fifth of a degree, whether lines lie or stand."""
    page = RENDERERS[name]()
    upright = turned(page, page.rotation) if page.rotation else page
    lean = lean_of(grey_of(turned(upright, degrees).pixels))
    standing = degrees > 45
    assert lean.standing == standing
    assert lean.degrees == pytest.approx(degrees - 90.0 * standing, abs=0.2)


def test_a_strip_does_not_become_a_huge_page() -> None:
    """Turned by its lean, a long one would have many times the pixels."""
    y, x = np.ogrid[:1000, :20_000]
    rows = y + (x * math.tan(math.radians(9.0))).astype(np.int32)
    strip = View(grey=(rows % 120 > 40).astype(np.uint8) * 255, page=Size(20_000, 1000))
    assert lean_of(strip.grey) == Lean(degrees=-9.0)
    assert level(strip).grey.size == strip.grey.size
    assert strip.pixels_turned(9.0) > 54_000_000
    small = View(grey=strip.grey[:, :2000], page=Size(2000, 1000))
    assert level(small).grey.size == pytest.approx(small.pixels_turned(9.0), rel=0.01)


def test_a_page_without_text_does_not_lean() -> None:
    """Empty, tiny, or grain alone."""
    grain = np.random.default_rng(3).integers(0, 255, (300, 300)).astype(np.uint8)
    for grey in (np.full((200, 100), 255, np.uint8), np.zeros((1, 1), np.uint8), grain):
        assert lean_of(grey) == Lean()


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Die Tür, 12", "Latn"),
        ("Старый маяк", "Cyrl"),
        ("これは漢字です", "Jpan"),
        ("汉字", "Hani"),
        ("한국어", "Kore"),
        ("ภาษาไทย", "Thai"),
        ("12.50 + 3", ""),
        ("", ""),
    ],
)
def test_scripts_are_told_by_their_letters(text: str, script: str) -> None:
    """Of most letters; numbers and signs are of none."""
    assert script_of_text(text) == script


def test_scripts_have_their_iso_names() -> None:
    """Those of Tesseract's orientation data, and of languages."""
    names = ("Latin", "Cyrillic", "Han", "Japanese", "Korean", "Fraktur", "Devanagari", "NULL")
    isos = ["Latn", "Cyrl", "Hani", "Jpan", "Kore", "Latf", "Deva", ""]
    assert [iso_script(name) for name in names] == isos
    assert [script_of_language(code) for code in ("eng", "ukr", "jpn")] == ["Latn", "Cyrl", "Jpan"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["two", "words"], "two words"),
        (["日本", "語", "です", "。"], "日本語です。"),
        (["한국", "사람"], "한국 사람"),
        (["東京", "Tower", "へ"], "東京 Tower へ"),
        (["ภาษา", "ไทย"], "ภาษาไทย"),
    ],
)
def test_words_are_joined_as_their_script_has_it(words: list[str], line: str) -> None:
    """Without spaces where it has none."""
    assert join_words(words) == line


def test_data_files_stand_for_languages(tmp_path: Path) -> None:
    """By ISO codes; variants and orientation stand for none, and the first folder counts."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, names in ((one, "eng osd"), (other, "eng chi_sim chi_tra deu_latf jpn equ")):
        folder.mkdir()
        for name in names.split():
            (folder / f"{name}.traineddata").write_text(str(folder))
    alone = Tessdata([one])
    assert (alone.folder, alone.languages, alone.knows_orientation) == (one, ("eng",), True)
    both = Tessdata([one, other])
    assert both.languages == ("eng", "jpn", "zho")
    assert both.joined(["zho", "eng"]) == "chi_sim+chi_tra+eng"
    assert (both.folder / "eng.traineddata").read_text() == str(one)
    both.close()
    assert not both.folder.exists()


def test_the_program_stands_in_for_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that can't be imported; where there is neither, the advice names what to install."""
    library = "atrium_img2text.engines.ocr.library"
    monkeypatch.delitem(sys.modules, library, raising=False)
    monkeypatch.delattr(library, raising=False)
    monkeypatch.setitem(sys.modules, "tesserocr", None)
    assert find_recognizer(TesseractOptions(), lambda: 0.0) is ProgramRecognizer
    with pytest.raises(ImportError, match="tesserocr"):
        find_recognizer(TesseractOptions(recognizer="library"), lambda: 0.0)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ModuleNotFoundError) as e:
        find_recognizer(TesseractOptions(), lambda: 0.0)
    assert e.value.name == "tesserocr"


async def test_workers_have_tools_of_their_own() -> None:
    """Made once in each thread, closed there; work goes to whoever has least of it."""
    closed: list[str] = []
    workers: Workers[str] = Workers(2, name="w", close_tool=closed.append)
    together = threading.Barrier(2, timeout=60)

    def name() -> str:
        return threading.current_thread().name

    def work(tool: str, _: CancelToken) -> str:
        together.wait()
        return tool

    for _ in range(2):
        tools = await asyncio.gather(*(workers.call("key", name, work) for _ in range(2)))
        assert sorted(tools) == ["w-0", "w-1"]
    await workers.drop("key")
    assert closed == ["w-0", "w-1"]
    await workers.close()
    with pytest.raises(Unavailable):
        await workers.call("key", name, work)


async def test_closing_asks_running_work_to_stop() -> None:
    """It ends at its next step, and its tool is closed behind it."""
    closed: list[str] = []
    workers: Workers[str] = Workers(1, name="w", close_tool=closed.append)
    began = threading.Event()

    def work(_: str, token: CancelToken) -> None:
        began.set()
        while True:
            token.raise_if_cancelled()

    running = asyncio.create_task(workers.call("key", lambda: "tool", work))
    await asyncio.to_thread(began.wait, 60)
    await workers.close()
    with pytest.raises(Cancelled):
        await running
    assert closed == ["tool"]


def test_overlap_is_that_of_areas() -> None:
    """All, a third, none."""
    box = Box(0, 0, 10, 10)
    assert overlap(box, box) == 1.0
    assert overlap(box, Box(5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert overlap(box, Box(20, 0, 10, 10)) == 0.0
