"""Which way of running Tesseract there is here: as a library, or as a program."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from atrium_img2text.engines.ocr import program
from atrium_img2text.engines.ocr.options import TesseractOptions
from atrium_img2text.engines.ocr.recognizer import Recognizer

Kind = Literal["library", "program"]
MakeRecognizer = Callable[[Path], Recognizer]
"""Opens a recognizer on a folder of data files."""


def find_recognizer(options: TesseractOptions, clock: Callable[[], float]) -> MakeRecognizer:
    """Returns the way of running Tesseract that the options ask for, or that is there.

    Args:
        options: Of the model.
        clock: Monotonic seconds.

    Raises:
        ModuleNotFoundError: It is not there; `name` says what is missing.
    """
    if options.recognizer != "program":
        try:
            return _library(options, clock)
        except ImportError:
            if options.recognizer == "library" or not program.is_installed():
                raise
    elif not program.is_installed():
        raise ModuleNotFoundError("There is no program tesseract.", name="tesseract")
    return program.ProgramRecognizer


def _library(options: TesseractOptions, clock: Callable[[], float]) -> MakeRecognizer:
    # Imported here, because not every machine can load what it brings.
    from atrium_img2text.engines.ocr import library

    library.silence()
    return lambda tessdata: library.LibraryRecognizer(
        tessdata, kept=options.cached_languages, clock=clock
    )
