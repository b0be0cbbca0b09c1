"""Tesseract as a process for each page, by pytesseract: where tesserocr can't be imported.

Pages pass through files in the temporary folder, which pytesseract removes. Set
OMP_THREAD_LIMIT=1 for the service, or each of the processes takes every core.
"""

import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytesseract  # type: ignore[import-untyped]
from PIL import Image

from atrium_img2text.engines.ocr.recognizer import FoundWord, Orientation, share_of
from atrium_img2text.engines.ocr.scripts import iso_script
from atrium_img2text.engines.ocr.upright import Grey
from atrium_img2text.reading import PageLayout

_MODES: dict[PageLayout, int] = {
    PageLayout.AUTO: 3,
    PageLayout.SINGLE_COLUMN: 4,
    PageLayout.SINGLE_BLOCK: 6,
    PageLayout.SINGLE_LINE: 7,
    PageLayout.SINGLE_WORD: 8,
    PageLayout.SPARSE: 11,
}
_TURNS = {0: 0, 90: 90, 180: 180, 270: -90}
_TIMED_OUT = "Tesseract process timeout"
_WORD = "5"
"""What the first column of a word's row holds."""


def is_installed() -> bool:
    """Tells whether there is a program `tesseract` to run."""
    return shutil.which("tesseract") is not None


class ProgramRecognizer:
    """Implements `Recognizer`; a process that takes too long is killed."""

    def __init__(self, tessdata: Path) -> None:
        """Takes the folder of the data files."""
        self._config = f"--tessdata-dir {shlex.quote(str(tessdata))}"

    def read(
        self,
        grey: Grey,
        *,
        languages: str,
        layout: PageLayout,
        resolution: int | None,
        seconds: float,
    ) -> Sequence[FoundWord]:
        """Implements `Recognizer`."""
        config = f"{self._config} --psm {_MODES[layout]}"
        if resolution is not None:
            config += f" --dpi {resolution}"
        try:
            table = pytesseract.image_to_data(
                _image(grey), lang=languages, config=config, timeout=seconds
            )
        except pytesseract.TesseractError:
            return ()  # a picture that can't be laid out: nothing is on it
        except RuntimeError as err:
            raise _timeout(err) from err
        return list(_words(table))

    def orientation(self, grey: Grey, *, seconds: float) -> Orientation | None:
        """Implements `Recognizer`."""
        try:
            found = pytesseract.image_to_osd(
                _image(grey),
                config=self._config,
                output_type=pytesseract.Output.DICT,
                timeout=seconds,
            )
        except pytesseract.TesseractError:
            return None  # too few letters
        except RuntimeError as err:
            raise _timeout(err) from err
        return Orientation(
            turn=_TURNS[int(found["rotate"]) % 360],
            confidence=float(found["orientation_conf"]),
            script=iso_script(str(found["script"])),
        )

    def close(self) -> None:
        """Implements `Recognizer`: nothing is open."""


def _image(grey: Grey) -> Image.Image:
    image = Image.fromarray(grey)
    image.format = "PPM"  # how pytesseract hands it over; PNG takes longer than reading it
    return image


def _timeout(err: RuntimeError) -> RuntimeError | TimeoutError:
    return TimeoutError("Tesseract took too long") if str(err) == _TIMED_OUT else err


def _words(table: str) -> Iterator[FoundWord]:
    """Reads Tesseract's TSV: level, page, block, paragraph, line, word, box, confidence, text."""
    blocks: dict[str, int] = {}
    paragraphs: dict[tuple[str, ...], int] = {}
    lines: dict[tuple[str, ...], int] = {}
    for row in table.splitlines():
        cells = row.split("\t")
        if cells[0] != _WORD or len(cells) < 12 or not (text := cells[11].strip()):
            continue
        left, top, width, height = map(int, cells[6:10])
        yield FoundWord(
            text=text,
            left=left,
            top=top,
            right=left + width,
            bottom=top + height,
            confidence=share_of(float(cells[10])),
            line=lines.setdefault(tuple(cells[2:5]), len(lines)),
            block=blocks.setdefault(cells[2], len(blocks)),
            paragraph=paragraphs.setdefault(tuple(cells[2:4]), len(paragraphs)),
        )
