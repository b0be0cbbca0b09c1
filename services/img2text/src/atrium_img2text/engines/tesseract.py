"""Text out of pages by Tesseract; the registry loads this lazily.

What Tesseract does is behind a port: in this process where tesserocr can be imported, else
as a process per page. Which way round and in which language, `ocr/strategy.py` decides.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from atrium_common.catalogue import CatalogueError, ModelEntry
from atrium_common.lifecycle import Lifecycle
from atrium_common.weights import WeightStore
from atrium_common.work import CancelToken
from atrium_img2text.engines.ocr.engine import Known, PageEngine
from atrium_img2text.engines.ocr.identify import LanguageIdentifier
from atrium_img2text.engines.ocr.options import TesseractOptions
from atrium_img2text.engines.ocr.recognizers import find_recognizer
from atrium_img2text.engines.ocr.strategy import PageReader, Reading
from atrium_img2text.engines.ocr.tessdata import Tessdata
from atrium_img2text.engines.ocr.upright import View
from atrium_img2text.reading import ReadingOrder

_Model = Known[TesseractOptions]


class TesseractEngine(PageEngine[TesseractOptions, Tessdata, PageReader]):
    """Reads pages with Tesseract; a model is a set of languages."""

    name = "tesseract"

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        store: WeightStore,
        lifecycle: Lifecycle | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reads the entries; see `PageEngine`.

        Raises:
            CatalogueError: An option does not hold, or there are no data files.
            ModuleNotFoundError: There is no Tesseract.
        """
        super().__init__(
            entries, TesseractOptions, store=store, lifecycle=lifecycle, now=now, clock=clock
        )
        for entry, options in ((known.entry, known.options) for known in self._models.values()):
            if not entry.sources and options.tessdata_dir is None:
                raise CatalogueError(f"{entry.id}: needs sources, or options.tessdata_dir")
        self._make_recognizer = {
            model: find_recognizer(known.options, clock) for model, known in self._models.items()
        }
        self._identifier = LanguageIdentifier()

    def _open(self, known: _Model) -> Tessdata:
        """Finds the files, and loads what tells languages apart where there are several."""
        folders = [self._store.ensure(known.entry)] if known.entry.sources else []
        if known.options.tessdata_dir is not None:
            folders.append(known.options.tessdata_dir)
        tessdata = Tessdata(folders)
        if not tessdata.languages:
            tessdata.close()
            raise FileNotFoundError("there are no data files of languages")
        if len(tessdata.languages) > 1:
            self._identifier.load()
        return tessdata

    def _make_tool(self, known: _Model, data: Tessdata) -> PageReader:
        first = known.options.first_language
        return PageReader(
            self._make_recognizer[known.entry.id](data.folder),
            data,
            self._identifier,
            first_language=first if first in data.languages else data.languages[0],
            clock=self._clock,
        )

    def _languages(self, data: Tessdata) -> Sequence[str]:
        return data.languages

    def _read(
        self,
        tool: PageReader,
        view: View,
        order: ReadingOrder,
        *,
        seconds: float,
        token: CancelToken,
    ) -> Reading:
        return tool.read(view, order, seconds=seconds, token=token)

    def _close_tool(self, tool: PageReader) -> None:
        tool.recognizer.close()

    def _close_data(self, data: Tessdata) -> None:
        data.close()
