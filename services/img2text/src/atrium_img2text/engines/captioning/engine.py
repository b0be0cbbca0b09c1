"""A registry engine over captioning models: which are loaded, and whose job it is.

`engines/blip2.py` and `engines/vlm.py` each add the family that they load.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import numpy as np

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import ModelInfo
from atrium_common.engine_options import read_options
from atrium_common.errors import Unavailable
from atrium_common.lifecycle import Lifecycle, ModelHandling, ModelHost, device_bytes
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
from atrium_img2text.engines.captioning.loading import device_of, without_bars
from atrium_img2text.engines.captioning.model import CaptioningModel, Prepared
from atrium_img2text.engines.captioning.options import CaptioningOptions

OptionsT = TypeVar("OptionsT", bound=CaptioningOptions)

_PROBE_SIDE = 64


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
        lifecycle: Lifecycle | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Reads the entries' options; loads nothing.

        Args:
            entries: The models, in catalogue order.
            store: Where their files are.
            lifecycle: Shared by the process's engines; see `ModelHost`.
            now: Aware UTC, for what `models` reports.

        Raises:
            CatalogueError: An option is unknown or out of its range.
        """
        self._store = store
        self.batches: defaultdict[str, Tally] = defaultdict(lambda: Tally(ROWS))
        self._loading = DeviceThread(f"{self.name}-loading")
        self._options = {entry.id: read_options(self.options_type, entry) for entry in entries}
        self._windows: dict[str, int] = {}
        handling = ModelHandling(
            open_model=self._open,
            warm_up=lambda _, captioner: captioner.verify(),
            close_model=self._close,
            failure=lambda captioner: captioner.failure,
            measure=self._measure,
        )
        self._host: ModelHost[Captioner] = ModelHost(
            self.name, entries, handling, lifecycle=lifecycle, now=now
        )
        most = max(options.max_batch for options in self._options.values())
        self.scheduling = Batching(slots=2 * most)

    @abstractmethod
    def open_model(self, entry: ModelEntry, options: OptionsT, folder: Path) -> CaptioningModel:
        """Loads a model of the family from its files. Blocks; may raise anything."""

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
        """Ends running work at its next step and frees memory. May be called twice."""
        await self._host.close()
        self._loading.close()

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order, with their present state."""
        return [
            replace(info, context_length=self._windows.get(info.id, info.context_length))
            for info in self._host.models()
        ]

    async def verify(self, model: str) -> None:
        """Generates one token, among what runs now; raises if the model can't."""
        await self._host.verify(model)

    def check_description(self, order: DescriptionOrder) -> None:
        """Refuses what the model can't do; see `VisionEngine`."""
        self._host.check(order.model)
        if (captioner := self._host.peek(order.model)) is not None:
            captioner.check_description(order)

    def check_question(self, order: QuestionOrder) -> None:
        """Refuses what the model can't do; see `VisionEngine`."""
        self._host.check(order.model)
        if (captioner := self._host.peek(order.model)) is not None:
            captioner.check_question(order)

    async def describe(self, job: DescriptionJob) -> AsyncGenerator[DescriptionEvent, None]:
        """Describes a picture; see `VisionEngine`."""
        async with self._host.use(job.order.model) as captioner:
            captioner.check_description(job.order)
            async with aclosing(captioner.describe(job)) as events:
                async for event in events:
                    yield event

    async def answer(self, job: QuestionJob) -> AsyncGenerator[AnswerEvent, None]:
        """Answers a question; see `VisionEngine`."""
        async with self._host.use(job.order.model) as captioner:
            captioner.check_question(job.order)
            async with aclosing(captioner.answer(job)) as events:
                async for event in events:
                    yield event

    def captioner(self, model: str) -> Captioner:
        """Returns what runs a model now; for tests and measurements.

        Raises:
            NotFound: The model is not of this engine.
            Unavailable: It is not loaded.
        """
        captioner = self._host.peek(model)
        if captioner is None:
            raise Unavailable(f"The model {model!r} is not loaded.", reason="MODEL_NOT_LOADED")
        return captioner

    async def _open(self, entry: ModelEntry) -> Captioner:
        options = self._options[entry.id]
        model, probe = await self._loading.call(self._read, entry)
        self._windows[entry.id] = model.context_length
        return Captioner(
            model,
            probe=probe,
            name=entry.id,
            max_batch=options.max_batch,
            threads=options.threads,
            batches=self.batches[entry.id],
        )

    def _read(self, entry: ModelEntry) -> tuple[CaptioningModel, Prepared]:
        folder = self._store.ensure(entry)
        with without_bars():
            model = self.open_model(entry, self._options[entry.id], folder)
        grey = np.full((_PROBE_SIDE, _PROBE_SIDE, 3), 128, np.uint8)
        order = DescriptionOrder(model=entry.id)
        return model, model.prepare_description(order, grey)

    async def _close(self, entry: ModelEntry, captioner: Captioner) -> None:
        del entry
        await asyncio.to_thread(captioner.close)
        await self._loading.flush()

    def _measure(self, entry: ModelEntry) -> int | None:
        return device_bytes(str(device_of(self._options[entry.id].device)))
