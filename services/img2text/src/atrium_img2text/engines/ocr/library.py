"""Tesseract in this process, by tesserocr, which lets other threads work meanwhile."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tesserocr  # type: ignore[import-untyped]
from tesserocr import OEM, PSM, RIL, PyResultIterator, PyTessBaseAPI

from atrium_img2text.engines.ocr.letters import LetterReader
from atrium_img2text.engines.ocr.recognizer import FoundWord, Orientation, share_of
from atrium_img2text.engines.ocr.upright import Grey
from atrium_img2text.reading import PageLayout

_MODES: dict[PageLayout, PSM] = {
    PageLayout.AUTO: PSM.AUTO,
    PageLayout.SINGLE_COLUMN: PSM.SINGLE_COLUMN,
    PageLayout.SINGLE_BLOCK: PSM.SINGLE_BLOCK,
    PageLayout.SINGLE_LINE: PSM.SINGLE_LINE,
    PageLayout.SINGLE_WORD: PSM.SINGLE_WORD,
    PageLayout.SPARSE: PSM.SPARSE_TEXT,
}


def silence() -> None:
    """Stops what Tesseract and Leptonica write to stderr: it tells of pages. Once per process."""
    tesserocr.set_leptonica_log_level(tesserocr.LeptLogLevel.NONE)
    with PyTessBaseAPI(init=False) as api:
        api.SetVariable("debug_file", "/dev/null")


class LibraryRecognizer:
    """Implements `Recognizer` with a few of Tesseract's readers, which it keeps."""

    def __init__(self, tessdata: Path, *, kept: int, clock: Callable[[], float]) -> None:
        """Opens nothing yet.

        Args:
            tessdata: Folder of the data files.
            kept: Readers of different languages to keep open, 1 or more; one takes about
                15 MB for each of its languages.
            clock: Monotonic seconds.
        """
        self._tessdata = tessdata
        self._kept = kept
        self._clock = clock
        self._apis: OrderedDict[str, PyTessBaseAPI] = OrderedDict()
        self._letters: LetterReader | None = None

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
        end = self._clock() + seconds
        api = self._api(languages)
        api.SetPageSegMode(_MODES[layout])
        try:
            _show(api, grey)
            if resolution is not None:
                api.SetSourceResolution(resolution)
            if api.Recognize(max(1, round(seconds * 1000))):
                return list(_words(api.GetIterator()))
            # False also stands for a picture that can't be laid out: nothing is on it.
            if self._clock() >= end:
                raise TimeoutError("Tesseract took too long")
            return ()
        finally:
            api.Clear()

    def orientation(self, grey: Grey, *, seconds: float) -> Orientation | None:
        """Implements `Recognizer`; takes as long as it takes, a second at most."""
        del seconds
        if self._letters is None:
            self._letters = LetterReader(self._tessdata)
        return self._letters.orientation(grey)

    def close(self) -> None:
        """Implements `Recognizer`."""
        while self._apis:
            self._apis.popitem()[1].End()
        if self._letters is not None:
            self._letters.close()
            self._letters = None

    def _api(self, languages: str) -> PyTessBaseAPI:
        """Returns a reader; closes the one that was not used for longest if there are too many."""
        api = self._apis.pop(languages, None)
        if api is None:
            while len(self._apis) >= self._kept:
                self._apis.popitem(last=False)[1].End()
            api = PyTessBaseAPI(path=f"{self._tessdata}/", lang=languages, oem=OEM.DEFAULT)
        self._apis[languages] = api
        return api


def _show(api: PyTessBaseAPI, grey: Grey) -> None:
    height, width = grey.shape
    api.SetImageBytes(grey.tobytes(), width, height, 1, width)


def _words(found: PyResultIterator | None) -> Iterator[FoundWord]:
    if found is None:
        return
    block = paragraph = line = -1
    for word in tesserocr.iterate_level(found, RIL.WORD):
        block += word.IsAtBeginningOf(RIL.BLOCK)
        paragraph += word.IsAtBeginningOf(RIL.PARA)
        line += word.IsAtBeginningOf(RIL.TEXTLINE)
        edges = word.BoundingBox(RIL.WORD)
        if word.Empty(RIL.WORD) or edges is None:
            continue
        text = word.GetUTF8Text(RIL.WORD).strip()
        if text:
            left, top, right, bottom = edges
            yield FoundWord(
                text=text,
                left=left,
                top=top,
                right=right,
                bottom=bottom,
                confidence=share_of(word.Confidence(RIL.WORD)),
                line=line,
                block=block,
                paragraph=paragraph,
            )
