"""A registry engine over captioning models: which are loaded, and whose job it is.

`engines/blip2.py` and `engines/vlm.py` each add the family that they load.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import numpy as np

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import ModelInfo, ModelState
from atrium_common.engine_models import find_model, load_each, model_info
from atrium_common.engine_options import read_options
from atrium_common.errors import AtriumError, Conflict, Unavailable
from atrium_common.telemetry.tally import ROWS, Tally
from atrium_common.weights import WeightStore
from atrium_common.work import Batching, DeviceThread
from atrium_img2text.domain import (
    AnswerEvent,
    DescriptionEvent,
    DescriptionJob,
    DescriptionOrder,
    QuestionJob,
    QuestionOrder,
)
from atrium_img2text.engines.captioning.captioner import Captioner
from atrium_img2text.engines.captioning.loading import release_memory, without_bars
from atrium_img2text.engines.captioning.model import CaptioningModel, Prepared
from atrium_img2text.engines.captioning.options import CaptioningOptions

OptionsT = TypeVar("OptionsT", bound=CaptioningOptions)

_PROBE_SIDE = 64


@dataclass(slots=True)
class _Place(Generic[OptionsT]):
    """One catalogue entry and what stands behind it now."""

    entry: ModelEntry
    options: OptionsT
    state: ModelState = ModelState.UNLOADED
    captioner: Captioner | None = None
    verified_at: datetime | None = None
    detail: str = ""


class CaptioningEngine(ABC, Generic[OptionsT]):
    """Meets `VisionEngine` for every family of `CaptioningModel`.

    Attributes:
        name: Registry name; set by each subclass.
        options_type: What an entry's options are; set by each subclass.
        scheduling: Twice the rows of the largest batch: one runs while the next one forms.
        batches: Rows of each batch, by model.
    """

    name: ClassVar[str]
    options_type: type[OptionsT]

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        store: WeightStore,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Reads the entries' options; loads nothing.

        Args:
            entries: The models, in catalogue order.
            store: Where their files are.
            now: Aware UTC, for `ModelInfo.verified_at`.

        Raises:
            CatalogueError: An option is unknown or out of its range.
        """
        self._store = store
        self._now = now
        self.batches: defaultdict[str, Tally] = defaultdict(lambda: Tally(ROWS))
        self._moving = asyncio.Lock()
        self._loading = DeviceThread(f"{self.name}-loading")
        self._places = {
            entry.id: _Place(entry, read_options(self.options_type, entry)) for entry in entries
        }
        most = max(place.options.max_batch for place in self._places.values())
        self.scheduling = Batching(slots=2 * most)

    @abstractmethod
    def open_model(self, entry: ModelEntry, options: OptionsT, folder: Path) -> CaptioningModel:
        """Loads a model of the family from its files. Blocks; may raise anything."""

    async def load(self) -> None:
        """Loads every model; one that fails is FAILED while others serve.

        Raises:
            AtriumError: None could be loaded; the first one's error.
        """
        await load_each(self._places, self.load_model)

    async def load_model(self, model: str) -> None:
        """Loads and verifies one model; does nothing if it is ready.

        Raises:
            NotFound: The model is not of this engine.
            WeightsError: Its files can't be had, or its licence was not accepted.
            Unavailable: It can't be loaded; the reason stands in `ModelInfo.detail`.
        """
        place = find_model(self._places, model)
        async with self._moving:
            if place.state is ModelState.READY:
                return
            await self._drop(place)  # what a lost device left
            place.state, place.detail = ModelState.LOADING, ""
            try:
                await self._open(place)
            except Exception as error:  # a loader's edge: the service lives on
                await self._drop(place)
                told = error.message if isinstance(error, Unavailable) else repr(error)
                _fail(place, told)
                if isinstance(error, AtriumError):  # says already what to do
                    raise
                raise Unavailable(
                    f"The model {model} could not be loaded.", reason="MODEL_FAILED"
                ) from error
            place.state = ModelState.READY

    async def unload_model(self, model: str) -> None:
        """Frees a model's memory.

        Raises:
            NotFound: The model is not of this engine.
            Conflict: Requests run on it.
        """
        place = find_model(self._places, model)
        async with self._moving:
            running = 0 if place.captioner is None else place.captioner.running
            if running:
                raise Conflict(f"{running} requests are running on {model}.", reason="MODEL_BUSY")
            await self._drop(place)
            place.state, place.detail = ModelState.UNLOADED, ""

    async def close(self) -> None:
        """Ends running work at its next step and frees memory. May be called twice."""
        async with self._moving:
            for place in self._places.values():
                await self._drop(place)
                place.state = ModelState.UNLOADED
            self._loading.close()

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order, with their present state."""
        return [
            model_info(
                place.entry,
                engine=self.name,
                state=place.state,
                context_length=place.captioner.context_length if place.captioner else None,
                verified_at=place.verified_at,
                detail=place.detail,
            )
            for place in self._places.values()
        ]

    async def verify(self, model: str) -> None:
        """Generates one token, among what runs now; raises if the model can't."""
        place = find_model(self._places, model)
        await self.captioner(model).verify()
        place.verified_at = self._now()

    def check_description(self, order: DescriptionOrder) -> None:
        """Refuses what the model can't do; see `VisionEngine`."""
        self.captioner(order.model).check_description(order)

    def check_question(self, order: QuestionOrder) -> None:
        """Refuses what the model can't do; see `VisionEngine`."""
        self.captioner(order.model).check_question(order)

    async def describe(self, job: DescriptionJob) -> AsyncGenerator[DescriptionEvent, None]:
        """Describes a picture; see `VisionEngine`."""
        async with aclosing(self.captioner(job.order.model).describe(job)) as events:
            async for event in events:
                yield event

    async def answer(self, job: QuestionJob) -> AsyncGenerator[AnswerEvent, None]:
        """Answers a question; see `VisionEngine`."""
        async with aclosing(self.captioner(job.order.model).answer(job)) as events:
            async for event in events:
                yield event

    def captioner(self, model: str) -> Captioner:
        """Returns what runs a model.

        Raises:
            NotFound: The model is not of this engine.
            Unavailable: It is not ready.
        """
        place = find_model(self._places, model)
        if place.captioner is None or place.state is not ModelState.READY:
            raise Unavailable(f"The model {model!r} is {place.state.value}.")
        return place.captioner

    async def _open(self, place: _Place[OptionsT]) -> None:
        model, probe = await self._loading.call(self._read, place)
        place.captioner = Captioner(
            model,
            probe=probe,
            name=place.entry.id,
            max_batch=place.options.max_batch,
            threads=place.options.threads,
            on_failure=lambda detail: _fail(place, detail),
            batches=self.batches[place.entry.id],
        )
        await place.captioner.verify()
        place.verified_at = self._now()

    def _read(self, place: _Place[OptionsT]) -> tuple[CaptioningModel, Prepared]:
        folder = self._store.ensure(place.entry)
        with without_bars():
            model = self.open_model(place.entry, place.options, folder)
        grey = np.full((_PROBE_SIDE, _PROBE_SIDE, 3), 128, np.uint8)
        order = DescriptionOrder(model=place.entry.id)
        return model, model.prepare_description(order, grey)

    async def _drop(self, place: _Place[OptionsT]) -> None:
        captioner, place.captioner, place.verified_at = place.captioner, None, None
        if captioner is not None:
            await asyncio.to_thread(captioner.close)
            del captioner
            await asyncio.to_thread(release_memory)


def _fail(place: _Place[OptionsT], detail: str) -> None:
    place.state, place.verified_at = ModelState.FAILED, None
    place.detail = " ".join(detail.split())[:500]
