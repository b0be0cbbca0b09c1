"""Asks Tesseract which way up letters are, through its C interface.

`library.py` uses it. tesserocr's own `DetectOrientationScript` holds Python's lock for as
long as it takes, so that nothing else in the process runs; a call by ctypes lets go of it.
"""

import ctypes
from pathlib import Path

import tesserocr.tesserocr  # type: ignore[import-untyped]

from atrium_img2text.engines.ocr.recognizer import Orientation
from atrium_img2text.engines.ocr.scripts import iso_script
from atrium_img2text.engines.ocr.upright import Grey

_OSD = b"osd"


class LetterReader:
    """Tesseract's reader of orientation; used by one thread at a time."""

    def __init__(self, tessdata: Path) -> None:
        """Loads ``osd.traineddata``.

        Raises:
            RuntimeError: It is not in the folder.
        """
        # The extension is linked against Tesseract, so its names are found there.
        self._tesseract = ctypes.CDLL(tesserocr.tesserocr.__file__)
        self._tesseract.TessBaseAPICreate.restype = ctypes.c_void_p
        self._handle = ctypes.c_void_p(self._tesseract.TessBaseAPICreate())
        if self._tesseract.TessBaseAPIInit3(self._handle, str(tessdata).encode(), _OSD):
            self.close()
            raise RuntimeError("Tesseract's data for orientation can't be read.")
        self._tesseract.TessBaseAPISetPageSegMode(self._handle, int(tesserocr.PSM.OSD_ONLY))

    def orientation(self, grey: Grey) -> Orientation | None:
        """Returns which way up the letters of a picture are; ``None`` if there are none."""
        height, width = grey.shape
        turned, sure_of_turn = ctypes.c_int(), ctypes.c_float()
        script, sure_of_script = ctypes.c_char_p(), ctypes.c_float()
        tesseract, handle = self._tesseract, self._handle
        try:
            tesseract.TessBaseAPISetImage(handle, grey.tobytes(), width, height, 1, width)
            found = tesseract.TessBaseAPIDetectOrientationScript(
                handle,
                ctypes.byref(turned),
                ctypes.byref(sure_of_turn),
                ctypes.byref(script),
                ctypes.byref(sure_of_script),
            )
            if not found:
                return None
            return Orientation(
                turn=upright_turn(turned.value),
                confidence=sure_of_turn.value,
                script=iso_script((script.value or b"").decode()),
            )
        finally:
            tesseract.TessBaseAPIClear(handle)

    def close(self) -> None:
        """Frees it; may be called twice."""
        handle, self._handle = self._handle, ctypes.c_void_p()
        if handle:
            self._tesseract.TessBaseAPIDelete(handle)


def upright_turn(degrees: int) -> int:
    """Returns by how much to turn a picture clockwise that is turned by so many, 0 to 270."""
    return {0: 0, 90: -90, 180: 180, 270: 90}[degrees % 360]
