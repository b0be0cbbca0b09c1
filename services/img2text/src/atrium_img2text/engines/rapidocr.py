"""Text out of pages by RapidOCR (PP-OCR networks); the registry loads this lazily.

Slower than Tesseract by ten times and as much more memory, it is surer of small, coarse or
colourful print, and one model reads some fifty languages in Latin, Chinese and Japanese letters.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rapidocr import RapidOCR

from atrium_common.catalogue import CatalogueError, ModelEntry
from atrium_common.errors import InvalidArgument
from atrium_common.lifecycle import Lifecycle
from atrium_common.weights import WeightStore
from atrium_common.work import CancelToken
from atrium_img2text.engines.ocr.engine import Known, PageEngine
from atrium_img2text.engines.ocr.identify import LanguageIdentifier
from atrium_img2text.engines.ocr.lean import level
from atrium_img2text.engines.ocr.options import RapidOcrOptions
from atrium_img2text.engines.ocr.rapid import RapidRecognizer
from atrium_img2text.engines.ocr.scripts import script_of_language, script_of_text
from atrium_img2text.engines.ocr.strategy import Reading
from atrium_img2text.engines.ocr.upright import View
from atrium_img2text.languages import alpha3
from atrium_img2text.reading import PageLayout, ReadingOrder

VERSION = "PP-OCRv6"
CONVINCING = 0.9
"""Mean confidence, by letters, from which on a page was read the right way; upside-down words
reach 0.8."""
LAYOUTS = (
    PageLayout.AUTO,
    PageLayout.SINGLE_COLUMN,
    PageLayout.SINGLE_BLOCK,
    PageLayout.SPARSE,
)
"""Lines are found wherever they are, and read from above to below, by all of these."""

_NAMES = {"ch": "zho", "chinese_cht": "zho", "japan": "jpn", "rs_latin": "srp"}
_Model = Known[RapidOcrOptions]


class RapidOcrEngine(PageEngine[RapidOcrOptions, Path, RapidRecognizer]):
    """Reads pages with PP-OCR's networks."""

    name = "rapidocr"

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
            CatalogueError: An option does not hold, or an entry has no source of files.
        """
        super().__init__(
            entries, RapidOcrOptions, store=store, lifecycle=lifecycle, now=now, clock=clock
        )
        for entry in entries:
            if not entry.sources:
                raise CatalogueError(f"{entry.id}: needs sources")
        self._known_languages = tuple(sorted(_supported()))
        self._identifier = LanguageIdentifier()

    def check_reading(self, order: ReadingOrder) -> None:
        """Refuses languages that the model does not read, and layouts that do not matter to it.

        Raises:
            NotFound: The model is not of this engine.
            InvalidArgument: So it is; `field` names it.
            Unavailable: The model has failed, or the engine is closed.
        """
        super().check_reading(order)
        if order.layout not in LAYOUTS:
            raise InvalidArgument(
                f"{order.model} finds lines by itself: the layout {order.layout} is not offered.",
                field="layout",
            )

    def _open(self, known: _Model) -> Path:
        self._identifier.load()
        return self._store.ensure(known.entry)

    def _make_tool(self, known: _Model, data: Path) -> RapidRecognizer:
        del known
        return RapidRecognizer(data)

    def _languages(self, data: Path) -> Sequence[str]:
        del data
        return self._known_languages

    def _read(
        self,
        tool: RapidRecognizer,
        view: View,
        order: ReadingOrder,
        *,
        seconds: float,
        token: CancelToken,
    ) -> Reading:
        """Reads a page upright: upside down as well, where the first reading is none."""
        end = self._clock() + seconds

        def check() -> None:
            token.raise_if_cancelled()
            if self._clock() >= end:
                raise TimeoutError("the page took too long")

        best = self._attempt(tool, level(view) if order.correct_orientation else view, order, check)
        if order.correct_orientation and 0 < best.sureness < CONVINCING:
            other = self._attempt(tool, best.view.turned(180), order, check)
            best = max(best, other, key=lambda reading: reading.amount)
        return best

    def _attempt(
        self,
        tool: RapidRecognizer,
        view: View,
        order: ReadingOrder,
        check: Callable[[], None],
    ) -> Reading:
        check()
        words = tool.read(view.grey, check)
        read = Reading(view=view, languages=tuple(order.languages), words=words)
        if order.languages:
            return read
        return Reading(view=view, languages=self._detected(read.text), words=words)

    def _detected(self, text: str) -> Sequence[str]:
        """Returns the language of a text among those with letters of its script."""
        script = script_of_text(text)
        among = [code for code in self._known_languages if script_of_language(code) == script]
        likeliest = self._identifier.likeliest(text, among) if among else None
        return () if likeliest is None else (likeliest,)


def _supported() -> set[str]:
    """Returns what the library says that the model reads, ISO 639-3."""
    names = RapidOCR.list_supported_langs("rec", VERSION, "small")  # type: ignore[no-untyped-call]
    codes = {_NAMES.get(name) or alpha3(name) for name in names}
    return {code for code in codes if code is not None}
