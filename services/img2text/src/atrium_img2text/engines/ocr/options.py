"""What a catalogue entry may say about a model that reads; unknown options are refused."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from atrium_common.engine_options import EngineOptions
from atrium_common.processors import processors


class ReadingOptions(EngineOptions):
    """Options of every engine that reads in this process."""

    workers: int = Field(default=0, ge=0)
    """Pages read at once; 0 takes every core that this process may use. The largest of the
    engine's models counts."""

    page_seconds: float = Field(default=60.0, gt=0)
    """Longest time that a page may take."""

    max_pixels: int = Field(default=36_000_000, ge=1)
    """Pages with more pixels are scaled down to so many before they are read; the default
    holds A4 at 600 pixels per inch. Reading takes about 14 bytes for each."""

    @property
    def threads(self) -> int:
        """Pages read at once, 1 or more."""
        return self.workers or processors()


class TesseractOptions(ReadingOptions):
    """Options of the engine `tesseract`, with their defaults."""

    tessdata_dir: Path | None = None
    """A folder with further data files, for example that of Debian's packages,
    ``/usr/share/tesseract-ocr/5/tessdata``."""

    first_language: str = Field(default="eng", pattern=r"^[a-z]{3}$")
    """The language, ISO 639-3, in which a page of unknown language is read first."""

    cached_languages: int = Field(default=4, ge=2)
    """Combinations of languages that each worker keeps open; each takes about 15 MB for each
    of its languages."""

    recognizer: Literal["auto", "library", "program"] = "auto"
    """How Tesseract runs: in this process (tesserocr), or as a process per page
    (pytesseract and an installed `tesseract`); ``auto`` takes the first that is there."""


class RapidOcrOptions(ReadingOptions):
    """Options of the engine `rapidocr`, with their defaults."""

    workers: int = Field(default=1, ge=0)
    """As in `ReadingOptions`; each takes up to 500 MB."""
