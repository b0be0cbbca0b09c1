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
from atrium_common.domain import ModelInfo
from atrium_common.engine_models import find_model
from atrium_common.engine_options import read_options
from atrium_common.errors import InvalidArgument, MediaError
from atrium_common.lifecycle import Lifecycle, ModelHandling, ModelHost
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
class Known(Generic[OptionsT]):
    """A model of the catalogue."""

    entry: ModelEntry
    options: OptionsT


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Opened(Generic[DataT]):
    """A loaded model's data, which its workers make their tools of."""

    data: DataT


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
        lifecycle: Lifecycle | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reads the entries; loads nothing.

        Args:
            entries: The models, in catalogue order.
            options: What an entry may say.
            store: Where their files are.
            lifecycle: Shared by the process's engines; see `ModelHost`.
            now: Aware UTC, for what `models` reports.
            clock: Monotonic seconds.

        Raises:
            CatalogueError: An option does not hold.
        """
        self._models = {e.id: Known[OptionsT](e, read_options(options, e)) for e in entries}
        self._installed: dict[str, Sequence[str]] = {}
        self._store = store
        self._clock = clock
        threads = max(known.options.threads for known in self._models.values())
        self.scheduling = Batching(slots=threads)
        self._workers: Workers[ToolT] = Workers(
            threads, name=self.name, close_tool=self._close_tool
        )
        handling = ModelHandling(
            open_model=self._open_model, warm_up=self._read_nothing, close_model=self._close_model
        )
        self._host: ModelHost[Opened[DataT]] = ModelHost(
            self.name, entries, handling, lifecycle=lifecycle, now=now
        )

    async def load(self) -> None:
        """Loads the models that are to be ready at start; see `ModelHost.load`."""
        await self._host.load()

    async def load_model(self, model: str) -> None:
        """Loads and verifies one model; see `ModelHost.load_model`."""
        await self._host.load_model(model)

    async def unload_model(self, model: str) -> None:
        """Frees a model's memory; see `ModelHost.unload_model`."""
        await self._host.unload_model(model)

    async def close(self) -> None:
        """Stops reading and frees memory. May be called twice."""
        await self._workers.close()
        await self._host.close()

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order."""
        return self._host.models()

    async def verify(self, model: str) -> None:
        """Reads an empty page, behind what is read now."""
        await self._host.verify(model)

    def languages(self, model: str) -> Sequence[str]:
        """Returns the languages, ISO 639-3, sorted; none before the model was first loaded."""
        find_model(self._models, model)
        return self._installed.get(model, ())

    def check_reading(self, order: ReadingOrder) -> None:
        """Refuses languages that are not there, as far as it is known.

        Raises:
            NotFound: The model is not of this engine.
            InvalidArgument: So it is; the message names those that are.
            Unavailable: The model has failed, or the engine is closed.
        """
        self._host.check(order.model)
        there = self._installed.get(order.model)
        for place, language in enumerate(order.languages):
            if there is not None and language not in there:
                raise InvalidArgument(
                    f"The language {language!r} is not installed; there are: {', '.join(there)}.",
                    field=f"languages[{place}]",
                )

    async def read(self, page: PageImage, order: ReadingOrder) -> Page:
        """Reads a page. A cancelled call returns once its thread has let go of the page.

        Raises:
            MediaError: It took longer than the option `page_seconds`.
            Unavailable: The model can't be loaded.
        """
        async with self._host.use(order.model) as opened:
            self.check_reading(order)
            return await self._in_worker(self._models[order.model], opened, page, order)

    @abstractmethod
    def _open(self, known: Known[OptionsT]) -> DataT:
        """Opens a model, in a thread; raises what it likes if it can't."""

    @abstractmethod
    def _make_tool(self, known: Known[OptionsT], data: DataT) -> ToolT:
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

    async def _open_model(self, entry: ModelEntry) -> Opened[DataT]:
        data = await asyncio.to_thread(self._open, self._models[entry.id])
        self._installed[entry.id] = self._languages(data)
        return Opened(data)

    async def _read_nothing(self, entry: ModelEntry, opened: Opened[DataT]) -> None:
        page = PageImage(number=1, pixels=np.full((*_VERIFICATION_SIZE, 3), 255, np.uint8))
        order = ReadingOrder(model=entry.id)
        await self._in_worker(self._models[entry.id], opened, page, order)

    async def _close_model(self, entry: ModelEntry, opened: Opened[DataT]) -> None:
        await self._workers.drop(entry.id)
        self._close_data(opened.data)

    async def _in_worker(
        self, known: Known[OptionsT], opened: Opened[DataT], page: PageImage, order: ReadingOrder
    ) -> Page:
        return await self._workers.call(
            known.entry.id,
            lambda: self._make_tool(known, opened.data),
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
