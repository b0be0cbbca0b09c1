"""What engines that read in this process have in common: models, workers, limits.

`engines/tesseract.py` and `engines/rapidocr.py` say how they open a model and read a page.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

import numpy as np

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import ModelInfo, ModelState
from atrium_common.engine_models import find_model, load_each, model_info
from atrium_common.engine_options import read_options
from atrium_common.errors import Conflict, InvalidArgument, MediaError, Unavailable
from atrium_common.weights import WeightStore
from atrium_common.work import Batching, CancelToken
from atrium_img2text.engines.ocr.lines import page_of
from atrium_img2text.engines.ocr.options import ReadingOptions
from atrium_img2text.engines.ocr.strategy import Reading
from atrium_img2text.engines.ocr.upright import View, view_of
from atrium_img2text.engines.ocr.workers import Workers
from atrium_img2text.reading import Page, PageImage, ReadingOrder

OptionsT = TypeVar("OptionsT", bound=ReadingOptions)
DataT = TypeVar("DataT")
ToolT = TypeVar("ToolT")

_VERIFICATION_SIZE = 64, 64


@dataclass(slots=True)
class Known(Generic[OptionsT, DataT]):
    """A model of the catalogue and where it stands; `data` are there from loading on."""

    entry: ModelEntry
    options: OptionsT
    state: ModelState = ModelState.UNLOADED
    data: DataT | None = None
    verified_at: datetime | None = None
    detail: str = ""
    users: int = 0


class PageEngine(ABC, Generic[OptionsT, DataT, ToolT]):
    """Reads pages on threads, each with tools of its own; meets `ReadingEngine`.

    What is known of a model once it is loaded are its data, shared by the threads.
    """

    name: str

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        options: type[OptionsT],
        *,
        store: WeightStore,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reads the entries; loads nothing.

        Args:
            entries: The models, in catalogue order.
            options: What an entry may say.
            store: Where their files are.
            now: Aware UTC, for `ModelInfo.verified_at`.
            clock: Monotonic seconds.

        Raises:
            CatalogueError: An option does not hold.
        """
        self._models = {e.id: Known[OptionsT, DataT](e, read_options(options, e)) for e in entries}
        self._store = store
        self._now = now
        self._clock = clock
        threads = max(known.options.threads for known in self._models.values())
        self.scheduling = Batching(slots=threads)
        self._workers: Workers[ToolT] = Workers(
            threads, name=self.name, close_tool=self._close_tool
        )

    async def load(self) -> None:
        """Loads every model; one that fails stands as FAILED while others serve.

        Raises:
            AtriumError: No model could be loaded; the first one's error.
        """
        await load_each(self._models, self.load_model)

    async def load_model(self, model: str) -> None:
        """Opens a model and reads an empty page with it; does nothing if it is ready.

        Raises:
            NotFound: The model is not of this engine.
            Unavailable: It can't be loaded; the reason stands in `ModelInfo.detail`.
        """
        known = find_model(self._models, model)
        if known.state is ModelState.READY:
            return
        known.state, known.detail = ModelState.LOADING, ""
        try:
            await self._workers.drop(model)  # what a failure may have left
            known.data = await asyncio.to_thread(self._open, known)
            await self._verify(known)
        except Exception as err:  # libraries, the store and the disk raise whatever fits them
            known.state, known.detail = ModelState.FAILED, f"{type(err).__name__}: {err}"
            self._forget(known)
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
        self._forget(known)

    async def close(self) -> None:
        """Stops reading and frees memory."""
        await self._workers.close()
        for known in self._models.values():
            known.state = ModelState.UNLOADED
            self._forget(known)

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
        """Reads an empty page, behind what is read now."""
        known = find_model(self._models, model)
        self._ready(known)
        await self._verify(known)

    def languages(self, model: str) -> Sequence[str]:
        """Returns the languages, ISO 639-3, sorted; none while the model is not loaded."""
        known = find_model(self._models, model)
        return () if known.data is None else self._languages(known.data)

    def check_reading(self, order: ReadingOrder) -> None:
        """Refuses languages that are not there.

        Raises:
            NotFound: The model is not of this engine.
            InvalidArgument: So it is; the message names those that are.
            Unavailable: The model is not ready.
        """
        known = find_model(self._models, order.model)
        there = self._languages(self._ready(known))
        for place, language in enumerate(order.languages):
            if language not in there:
                raise InvalidArgument(
                    f"The language {language!r} is not installed; there are: {', '.join(there)}.",
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
            return await self._in_worker(known, page, order)
        finally:
            known.users -= 1

    @abstractmethod
    def _open(self, known: Known[OptionsT, DataT]) -> DataT:
        """Opens a model, in a thread; raises what it likes if it can't."""

    @abstractmethod
    def _make_tool(self, known: Known[OptionsT, DataT], data: DataT) -> ToolT:
        """Makes what a worker reads with, in the worker."""

    @abstractmethod
    def _languages(self, data: DataT) -> Sequence[str]:
        """Returns a model's languages, ISO 639-3, sorted."""

    @abstractmethod
    def _read(
        self, tool: ToolT, view: View, order: ReadingOrder, *, seconds: float, token: CancelToken
    ) -> Reading:
        """Reads a page, in a worker; raises `TimeoutError` after so many seconds."""

    def _close_tool(self, tool: ToolT) -> None:
        """Frees what a tool holds, in its worker."""

    def _close_data(self, data: DataT) -> None:
        """Frees what a model's data hold."""

    async def _verify(self, known: Known[OptionsT, DataT]) -> None:
        page = PageImage(number=1, pixels=np.full((*_VERIFICATION_SIZE, 3), 255, np.uint8))
        await self._in_worker(known, page, ReadingOrder(model=known.entry.id))
        known.verified_at = self._now()

    async def _in_worker(
        self, known: Known[OptionsT, DataT], page: PageImage, order: ReadingOrder
    ) -> Page:
        data = self._loaded(known)
        return await self._workers.call(
            known.entry.id,
            lambda: self._make_tool(known, data),
            lambda tool, token: self._page(known.options, tool, page, order, token),
        )

    def _page(
        self,
        options: OptionsT,
        tool: ToolT,
        page: PageImage,
        order: ReadingOrder,
        token: CancelToken,
    ) -> Page:
        """In a worker."""
        began = self._clock()
        view = view_of(page, max_pixels=options.max_pixels)
        try:
            read = self._read(tool, view, order, seconds=options.page_seconds, token=token)
        except TimeoutError as err:
            raise MediaError(
                f"Page {page.number} took longer than {options.page_seconds:g} s to read.",
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

    def _ready(self, known: Known[OptionsT, DataT]) -> DataT:
        """Returns a model's data; an operator may have unloaded it meanwhile."""
        if known.state is not ModelState.READY:
            raise Unavailable(f"The model {known.entry.id} is not ready.", reason="MODEL_NOT_READY")
        return self._loaded(known)

    def _loaded(self, known: Known[OptionsT, DataT]) -> DataT:
        if known.data is None:
            raise Unavailable(
                f"The model {known.entry.id} is not loaded.", reason="MODEL_NOT_READY"
            )
        return known.data

    def _forget(self, known: Known[OptionsT, DataT]) -> None:
        if known.data is not None:
            self._close_data(known.data)
            known.data = None
