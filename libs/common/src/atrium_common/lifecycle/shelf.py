"""The loaded models of one host: brings them in, measures them, drops them.

`host.py` decides when; this does it, always with `Lifecycle.moving` held.
"""

import asyncio
import logging
import time
import weakref
from collections.abc import Callable
from datetime import datetime
from typing import Generic, TypeVar

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import ModelState
from atrium_common.lifecycle.handling import ModelHandling
from atrium_common.lifecycle.lifecycle import Lifecycle
from atrium_common.lifecycle.record import ModelRecord

LoadedT = TypeVar("LoadedT")

_LOOKS = 10
_LOOK_SECONDS = 0.05

_log = logging.getLogger(__name__)


class Shelf(Generic[LoadedT]):
    """Holds the only lasting references to loaded models, so that dropping one frees it."""

    def __init__(
        self,
        handling: ModelHandling[LoadedT],
        lifecycle: Lifecycle,
        now: Callable[[], datetime],
    ) -> None:
        self._handling = handling
        self._lifecycle = lifecycle
        self._now = now
        self._loaded: dict[str, LoadedT] = {}

    def serving(self, record: ModelRecord) -> LoadedT | None:
        """Returns a model if it can serve now; notes it where it has failed."""
        loaded = self._loaded.get(record.entry.id)
        if loaded is None or record.state is not ModelState.READY:
            return None
        if detail := self._handling.failure(loaded):
            record.fail(detail, self._lifecycle.clock())
            return None
        return loaded

    async def bring_in(self, record: ModelRecord, *, evict: bool) -> None:
        """Makes room, opens a model and warms it up; READY when it returns.

        Raises:
            AtriumError: There is no room; see `Lifecycle.make_room`.
            Exception: What the engine raises. Nothing of the model stays.
        """
        await self.drop(record)  # what failed while it served
        record.state = ModelState.LOADING
        need = self._need(record)
        await self._lifecycle.make_room(record, need, evict=evict)
        record.held_bytes = need
        before = self._handling.measure(record.entry)
        try:
            await self._open(record)
        except BaseException:
            await self._release(record, [])
            raise
        if before is not None:  # what only loading needed is given back before it is measured
            await asyncio.to_thread(self._lifecycle.release)
        after = self._handling.measure(record.entry)
        # A card that nothing is on yet counts from zero, which is a measure, too.
        known = before is not None and after is not None
        record.measured_bytes = max((after or 0) - (before or 0), 0) if known else 0
        if record.entry.memory_mib is None:
            record.held_bytes = record.measured_bytes or need
            await self._lifecycle.shrink()
        record.loaded, record.state, record.failures = True, ModelState.READY, 0
        record.last_used, record.last_used_at = self._lifecycle.clock(), None
        record.verified_at = self._now()

    async def _open(self, record: ModelRecord) -> None:
        loaded = await self._handling.open_model(record.entry)
        try:
            await self._handling.warm_up(record.entry, loaded)
        except BaseException:
            await self._handling.close_model(record.entry, loaded)
            raise
        self._loaded[record.entry.id] = loaded

    async def drop(self, record: ModelRecord, *, wait: bool = True) -> None:
        """Unloads a model; does nothing if it is not loaded.

        Args:
            record: The model's.
            wait: Whether to return when its memory is given back: not where the process ends.
        """
        loaded = self._loaded.pop(record.entry.id, None)
        record.loaded, record.state, record.verified_at = False, ModelState.UNLOADED, None
        if loaded is None:
            return
        box = [loaded]
        before = self._handling.measure(record.entry) or 0
        try:
            await self._handling.close_model(record.entry, loaded)
        finally:
            del loaded
            if wait:
                await self._release(record, box, before - record.measured_bytes // 2)
            else:
                record.held_bytes = 0

    async def verify(self, record: ModelRecord, loaded: LoadedT) -> None:
        """Runs the small pass on a loaded model."""
        await self._handling.warm_up(record.entry, loaded)
        record.verified_at = self._now()

    async def _release(self, record: ModelRecord, box: list[LoadedT], below: int = 0) -> None:
        if record.held_bytes or record.measured_bytes:
            free = below if record.measured_bytes and below > 0 else None
            await asyncio.to_thread(self._empty, record.entry, box, free)
        box.clear()  # of a model that holds nothing: a provider's, a fake's
        record.held_bytes = 0
        self._lifecycle.changed()

    def _empty(self, entry: ModelEntry, box: list[LoadedT], below: int | None) -> None:
        """Drops the last reference in a thread: freeing gigabytes takes a moment.

        The thread that closed the model, or ran its last work, may hold it a little longer, and
        `gc.collect` does nothing while another thread collects: so look whether it is gone.

        Args:
            entry: The model's.
            box: Holds the last reference.
            below: What its device's memory should fall to; ``None`` if that can't be told.
        """
        gone = weakref.ref(box.pop()) if box else lambda: None
        for _ in range(_LOOKS):
            self._lifecycle.release()
            if gone() is None and (below is None or (self._handling.measure(entry) or 0) <= below):
                return
            time.sleep(_LOOK_SECONDS)
        _log.warning("%s was unloaded, and its memory is not free yet", entry.id)

    def _need(self, record: ModelRecord) -> int:
        if record.entry.memory_mib is not None:
            return record.entry.memory_mib << 20
        return record.measured_bytes or self._handling.expect(record.entry)
