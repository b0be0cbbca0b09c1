"""Which way up letters are: as tesserocr tells it, but others run meanwhile."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tesserocr
from PIL import Image

from atrium_common.catalogue import Catalogue
from atrium_common.weights import WeightStore
from atrium_img2text.engines.ocr.letters import LetterReader
from atrium_img2text.engines.ocr.upright import Grey
from atrium_img2text.testing.pages import sideways

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def tessdata() -> Path:
    entries = Catalogue.load(ROOT / "models" / "starter.yaml").for_service("img2text")
    entry = next(entry for entry in entries if entry.engine == "tesseract")
    return WeightStore(ROOT / ".atrium" / "models").ensure(entry)


@pytest.fixture
def reader(tessdata: Path) -> Iterator[LetterReader]:
    reader = LetterReader(tessdata)
    yield reader
    reader.close()
    reader.close()


def grey() -> Grey:
    return np.asarray(Image.fromarray(sideways().pixels).convert("L"))


def test_letters_are_turned_as_tesserocr_says(tessdata: Path, reader: LetterReader) -> None:
    page = grey()
    found = reader.orientation(page)
    with tesserocr.PyTessBaseAPI(path=str(tessdata), lang="osd", psm=tesserocr.PSM.OSD_ONLY) as api:
        height, width = page.shape
        api.SetImageBytes(page.tobytes(), width, height, 1, width)
        own = api.DetectOrientationScript()
    assert found is not None
    assert (found.turn, found.script) == (-own["orient_deg"], "Latn")
    assert found.confidence == pytest.approx(own["orient_conf"])
    assert reader.orientation(np.full((64, 64), 255, np.uint8)) is None


def test_others_run_while_letters_are_looked_at(reader: LetterReader) -> None:
    page = grey()
    asking = threading.Thread(target=reader.orientation, args=(page,))
    asking.start()
    turns = 0
    while asking.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns > 10  # one, where the lock is held


def test_data_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        LetterReader(tmp_path)
