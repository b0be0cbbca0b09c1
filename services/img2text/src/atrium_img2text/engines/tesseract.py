"""Text out of pages by Tesseract; the registry loads this lazily.

Pages are read on as many threads as there are cores, each with readers of its own. What
Tesseract does is behind a port: in this process where tesserocr can be imported, else as a
process per page. Which way round and in which language, `ocr/strategy.py` decides.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from atrium_common.catalogue import CatalogueError, ModelEntry
from atrium_common.domain import ModelInfo, ModelState
from atrium_common.engine_models import find_model, load_each, model_info
from atrium_common.engine_options import read_options
from atrium_common.errors import Conflict, InvalidArgument, MediaError, Unavailable
from atrium_common.weights import WeightStore
from atrium_common.work import Batching, CancelToken
from atrium_img2text.engines.ocr.identify import LanguageIdentifier
from atrium_img2text.engines.ocr.lines import page_of
from atrium_img2text.engines.ocr.options import TesseractOptions
from atrium_img2text.engines.ocr.recognizers import MakeRecognizer, find_recognizer
from atrium_img2text.engines.ocr.strategy import PageReader
from atrium_img2text.engines.ocr.tessdata import Tessdata
from atrium_img2text.engines.ocr.upright import view_of
from atrium_img2text.engines.ocr.workers import Workers
from atrium_img2text.reading import Page, PageImage, ReadingOrder

_VERIFICATION_SIZE = 64, 64


@dataclass(slots=True)
class _Model:
    """A model of the catalogue and where it stands."""

    entry: ModelEntry
    options: TesseractOptions
    make_recognizer: MakeRecognizer
    state: ModelState = ModelState.UNLOADED
    tessdata: Tessdata | None = None
    verified_at: datetime | None = None
    detail: str = ""
    users: int = 0


class TesseractEngine:
    """Reads pages with Tesseract; meets `ReadingEngine`."""

    name = "tesseract"

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        store: WeightStore,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reads the entries; loads nothing.

        Args:
            entries: The models, in catalogue order: sets of languages.
            store: Where their files are.
            now: Aware UTC, for `ModelInfo.verified_at`.
            clock: Monotonic seconds.

        Raises:
            CatalogueError: An option does not hold, or there are no data files.
            ModuleNotFoundError: There is no Tesseract.
        """
        self._models = {entry.id: _model(entry, clock) for entry in entries}
        self._store = store
        self._now = now
        self._clock = clock
        self._identifier = LanguageIdentifier()
        threads = max(known.options.threads for known in self._models.values())
        self.scheduling = Batching(slots=threads)
        self._workers: Workers[PageReader] = Workers(
            threads, name=self.name, close_tool=lambda reader: reader.recognizer.close()
        )

    async def load(self) -> None:
        """Loads every model; one that fails stands as FAILED while others serve.

        Raises:
            AtriumError: No model could be loaded; the first one's error.
        """
        await load_each(self._models, self.load_model)

    async def load_model(self, model: str) -> None:
        """Finds the model's languages and reads with the first; does nothing if it is ready.

        Raises:
            NotFound: The model is not of this engine.
            Unavailable: It can't be loaded; the reason stands in `ModelInfo.detail`.
        """
        known = find_model(self._models, model)
        if known.state is ModelState.READY:
            return
        known.state, known.detail = ModelState.LOADING, ""
        try:
            known.tessdata = await asyncio.to_thread(self._open, known)
            await self._verify(known)
        except Exception as err:  # Tesseract, the store and the disk raise whatever fits them
            known.state, known.detail = ModelState.FAILED, f"{type(err).__name__}: {err}"
            raise Unavailable(
                f"The model {model} could not be loaded.", reason="MODEL_FAILED"
            ) from err
        known.state = ModelState.READY

    async def unload_model(self, model: str) -> None:
        """Frees a model's memory.

        Raises:
            Conflict: Pages are being read with it.
        """
        known = find_model(self._models, model)
        if known.users:
            raise Conflict(f"{known.users} pages are being read with {model}.", reason="MODEL_BUSY")
        known.state, known.verified_at = ModelState.UNLOADED, None
        await self._workers.drop(model)
        _close_data(known)

    async def close(self) -> None:
        """Stops reading and frees memory."""
        await self._workers.close()
        for known in self._models.values():
            known.state = ModelState.UNLOADED
            _close_data(known)

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order."""
        return [
            model_info(
                known.entry,
                engine=self.name,
                state=known.state,
                verified_at=known.verified_at,
                detail=known.detail,
            )
            for known in self._models.values()
        ]

    async def verify(self, model: str) -> None:
        """Reads an empty page in the first language, behind what is read now."""
        known = find_model(self._models, model)
        _ready(known)
        await self._verify(known)

    def languages(self, model: str) -> Sequence[str]:
        """Returns the installed languages, ISO 639-3, sorted; none while it is not loaded."""
        tessdata = find_model(self._models, model).tessdata
        return () if tessdata is None else tessdata.languages

    def check_reading(self, order: ReadingOrder) -> None:
        """Refuses languages that are not installed.

        Raises:
            NotFound: The model is not of this engine.
            InvalidArgument: So it is; the message names those that are.
            Unavailable: The model is not ready.
        """
        installed = _ready(find_model(self._models, order.model)).languages
        for place, language in enumerate(order.languages):
            if language not in installed:
                raise InvalidArgument(
                    f"The language {language!r} is not installed; there are: "
                    f"{', '.join(installed)}.",
                    field=f"languages[{place}]",
                )

    async def read(self, page: PageImage, order: ReadingOrder) -> Page:
        """Reads a page. A cancelled call returns once its thread has let go of the page.

        Raises:
            MediaError: It took longer than the option `page_seconds`.
            Unavailable: The model is not ready.
        """
        self.check_reading(order)
        known = find_model(self._models, order.model)
        known.users += 1
        try:
            return await self._in_worker(
                known, lambda reader, token: self._read(known, reader, page, order, token)
            )
        finally:
            known.users -= 1

    def _read(
        self,
        known: _Model,
        reader: PageReader,
        page: PageImage,
        order: ReadingOrder,
        token: CancelToken,
    ) -> Page:
        """In a worker."""
        began = self._clock()
        view = view_of(page, max_pixels=known.options.max_pixels)
        try:
            read = reader.read(view, order, seconds=known.options.page_seconds, token=token)
        except TimeoutError as err:
            raise MediaError(
                f"Page {page.number} took longer than {known.options.page_seconds:g} s to read.",
                reason="PAGE_TIMEOUT",
            ) from err
        return page_of(
            read.words,
            read.view,
            number=page.number,
            languages=read.languages if read.words or order.languages else (),
            min_confidence=order.min_confidence,
            inference=timedelta(seconds=self._clock() - began),
        )

    async def _verify(self, known: _Model) -> None:
        page = PageImage(number=1, pixels=np.full((*_VERIFICATION_SIZE, 3), 255, np.uint8))
        order = ReadingOrder(model=known.entry.id)
        await self._in_worker(
            known, lambda reader, token: self._read(known, reader, page, order, token)
        )
        known.verified_at = self._now()

    async def _in_worker(
        self, known: _Model, work: Callable[[PageReader, CancelToken], Page]
    ) -> Page:
        """Works with a reader of the model, which each worker opens when it needs it first."""
        tessdata = _tessdata(known)

        def make() -> PageReader:
            return PageReader(
                known.make_recognizer(tessdata.folder),
                tessdata,
                self._identifier,
                first_language=_first_language(known, tessdata),
                clock=self._clock,
            )

        return await self._workers.call(known.entry.id, make, work)

    def _open(self, known: _Model) -> Tessdata:
        """Finds the files, and loads what tells languages apart where there are several."""
        folders = [self._store.ensure(known.entry)] if known.entry.sources else []
        if known.options.tessdata_dir is not None:
            folders.append(known.options.tessdata_dir)
        tessdata = Tessdata(folders)
        if not tessdata.languages:
            tessdata.close()
            raise FileNotFoundError(f"{known.entry.id}: there are no data files of languages")
        if len(tessdata.languages) > 1:
            self._identifier.load()
        return tessdata


def _model(entry: ModelEntry, clock: Callable[[], float]) -> _Model:
    options = read_options(TesseractOptions, entry)
    if not entry.sources and options.tessdata_dir is None:
        raise CatalogueError(f"{entry.id}: needs sources, or options.tessdata_dir")
    return _Model(entry, options, find_recognizer(options, clock))


def _first_language(known: _Model, tessdata: Tessdata) -> str:
    wanted = known.options.first_language
    return wanted if wanted in tessdata.languages else tessdata.languages[0]


def _tessdata(known: _Model) -> Tessdata:
    if known.tessdata is None:
        raise Unavailable(f"The model {known.entry.id} is not loaded.", reason="MODEL_NOT_READY")
    return known.tessdata


def _ready(known: _Model) -> Tessdata:
    """Returns a model's languages; an operator may have unloaded it meanwhile."""
    if known.state is not ModelState.READY:
        raise Unavailable(f"The model {known.entry.id} is not ready.", reason="MODEL_NOT_READY")
    return _tessdata(known)


def _close_data(known: _Model) -> None:
    if known.tessdata is not None:
        known.tessdata.close()
        known.tessdata = None
