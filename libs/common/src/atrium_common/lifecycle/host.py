"""One engine's models and where each stands; the engine opens, warms up and closes them.

Every engine that loads weights makes one; see the package's docstring.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import ModelInfo, ModelState
from atrium_common.engine_models import find_model, load_each, model_info
from atrium_common.errors import AtriumError, Cancelled, Conflict, Overloaded, Unavailable
from atrium_common.lifecycle.handling import ModelHandling
from atrium_common.lifecycle.lifecycle import Lifecycle, NoRoomAtStart
from atrium_common.lifecycle.record import ModelRecord
from atrium_common.lifecycle.shelf import Shelf

LoadedT = TypeVar("LoadedT")

_log = logging.getLogger(__name__)


class ModelHost(Generic[LoadedT]):
    """Keeps an engine's models: loads on use, counts users, unloads. Used on the event loop."""

    def __init__(
        self,
        engine: str,
        entries: Sequence[ModelEntry],
        handling: ModelHandling[LoadedT],
        *,
        lifecycle: Lifecycle | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Takes the models; loads nothing.

        Args:
            engine: Name of the engine, as `ModelInfo.engine`.
            entries: The models, in catalogue order.
            handling: How the engine opens and closes them.
            lifecycle: Shared by all engines of the process; default is one that loads all
                models at start and keeps them.
            now: Aware UTC, for what `models` reports.
        """
        self._engine = engine
        self._lifecycle = lifecycle or Lifecycle()
        self._now = now
        self._shelf = Shelf(handling, self._lifecycle, now)
        self._loads: dict[str, asyncio.Task[AtriumError | None]] = {}
        self._closed = False
        self._records = {entry.id: self._record(entry) for entry in entries}

    def _record(self, entry: ModelEntry) -> ModelRecord:
        record = ModelRecord(
            entry,
            self._lifecycle.policy.keep_alive_of(entry),
            drop=lambda: self._shelf.drop(record),
            reload=lambda: self._begin(record, evict=False),
        )
        self._lifecycle.register(record)
        return record

    async def load(self) -> None:
        """Loads the models that are to be there at start, one after the other.

        One that fails stands as FAILED; one that does not fit beside those before it stays
        UNLOADED, for its first use to load.

        Raises:
            AtriumError: All that were to be loaded failed; the first one's error.
        """
        chosen = [model for model in self._records if self._lifecycle.starts_with(model)]
        await load_each(chosen, self._load_at_start)

    async def _load_at_start(self, model: str) -> None:
        record = self._records[model]
        try:
            if self._shelf.serving(record) is None:
                await self._load_shared(record, evict=False)
        except NoRoomAtStart:
            _log.warning("%s is not loaded at start: it does not fit beside others", model)

    async def load_model(self, model: str) -> None:
        """Loads and verifies a model now, whatever failed before; does nothing if it is ready.

        For operators: the error says what went wrong.

        Raises:
            NotFound: The model is not of this engine.
            Unavailable: It can't be loaded.
            Overloaded: Models in use take the memory.
        """
        record = self._find(model)
        if self._shelf.serving(record) is None:
            await self._load_shared(record, evict=True)

    async def unload_model(self, model: str) -> None:
        """Frees a model's memory; does nothing if it is not loaded.

        Raises:
            NotFound: The model is not of this engine.
            Conflict: Requests run on it or wait for it.
        """
        record = self._find(model)
        _refuse_busy(record)
        # In a task of its own: a caller that leaves must not leave half a model behind.
        await asyncio.shield(asyncio.create_task(self._unload(record)))

    async def _unload(self, record: ModelRecord) -> None:
        async with self._lifecycle.moving:
            _refuse_busy(record)
            await self._shelf.drop(record)

    @asynccontextmanager
    async def use(self, model: str) -> AsyncIterator[LoadedT]:
        """Gives the loaded model for the block, and loads it first if need be.

        It stays loaded until the block ends.

        Raises:
            NotFound: The model is not of this engine.
            Unavailable: It can't be loaded, or failed lately and is not tried again yet.
            Overloaded: Models in use take the memory.
        """
        record = self._find(model)
        with self._counted(record):
            loaded = self._shelf.serving(record)
            if loaded is None:
                loaded = await self._first_use(record)
            record.last_used_at = self._now()
            yield loaded
            record.last_used_at = self._now()

    def check(self, model: str) -> None:
        """Refuses a request that `use` would refuse, before its caller uploads or waits.

        A model that is not loaded passes: its first use loads it.

        Raises:
            NotFound: The model is not of this engine.
            Unavailable: It has failed, or the engine is closed.
        """
        record = self._find(model)
        if self._closed:
            raise Unavailable(f"The model {model!r} is not ready.", reason="MODEL_NOT_READY")
        self._shelf.serving(record)  # notices a model that failed while it served
        if record.state is ModelState.FAILED:
            left = record.retry_at - self._lifecycle.clock()
            raise _for_callers(record, retry_seconds=left)

    def peek(self, model: str) -> LoadedT | None:
        """Returns a model if it can serve now, for what is asked of it outside of a request.

        Raises:
            NotFound: The model is not of this engine.
        """
        return self._shelf.serving(self._find(model))

    def entry(self, model: str) -> ModelEntry:
        """Returns the catalogue's entry of a model; `NotFound` if it is not of this engine."""
        return self._find(model).entry

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order."""
        return [self._info(record) for record in self._records.values()]

    async def verify(self, model: str) -> None:
        """Runs the small pass on a loaded model.

        Raises:
            NotFound: The model is not of this engine.
            Unavailable: It is not loaded.
            Exception: What the pass raises.
        """
        record = self._find(model)
        with self._counted(record):
            loaded = self._shelf.serving(record)
            if loaded is None:
                raise Unavailable(f"The model {model} is not loaded.", reason="MODEL_NOT_LOADED")
            await self._shelf.verify(record, loaded)

    async def close(self) -> None:
        """Closes every model, in use or not; its process ends, so nobody waits for the memory.

        May be called twice; nothing loads afterwards.
        """
        self._closed = True
        loads = tuple(self._loads.values())
        for task in loads:
            task.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        async with self._lifecycle.moving:
            for record in self._records.values():
                await self._shelf.drop(record, wait=False)
                self._lifecycle.forget(record)

    def _find(self, model: str) -> ModelRecord:
        return find_model(self._records, model)

    @contextmanager
    def _counted(self, record: ModelRecord) -> Iterator[None]:
        record.users += 1
        try:
            yield
        finally:
            record.users -= 1
            if not record.users:
                record.last_used = self._lifecycle.clock()
                self._lifecycle.changed()

    def _info(self, record: ModelRecord) -> ModelInfo:
        self._shelf.serving(record)  # notices a model that failed while it served
        return model_info(
            record.entry,
            engine=self._engine,
            state=record.state,
            verified_at=record.verified_at,
            detail=record.detail,
            memory_bytes=(record.measured_bytes or record.held_bytes) if record.loaded else 0,
            last_used_at=record.last_used_at,
        )

    async def _first_use(self, record: ModelRecord) -> LoadedT:
        left = record.retry_at - self._lifecycle.clock()
        if record.state is ModelState.FAILED and left > 0:
            raise _for_callers(record, retry_seconds=left)
        try:
            await self._load_shared(record, evict=True)
        except (Overloaded, Cancelled):
            raise
        except AtriumError as error:
            raise _for_callers(record) from error
        loaded = self._shelf.serving(record)
        if loaded is None:  # the engine was closed, or the model died at once
            raise _for_callers(record)
        return loaded

    async def _load_shared(self, record: ModelRecord, *, evict: bool) -> None:
        """Joins the load that runs, or begins one; a caller that leaves takes nothing away."""
        task = self._begin(record, evict=evict)
        record.waiting += 1
        try:
            await asyncio.wait({task})
        finally:
            record.waiting -= 1
            if not record.waiting:
                self._lifecycle.changed()  # a load that waits for room gives up
        if task.cancelled():
            raise Unavailable("The engine was closed.")
        if (error := task.result()) is not None:
            raise error

    def _begin(self, record: ModelRecord, *, evict: bool) -> "asyncio.Task[AtriumError | None]":
        model = record.entry.id
        if self._closed:
            raise Unavailable("The engine is closed.")
        task = self._loads.get(model)
        if task is None:
            record.state, record.detail = ModelState.LOADING, ""
            task = asyncio.create_task(self._load(record, evict=evict), name=f"load {model}")
            self._loads[model] = task
        return task

    async def _load(self, record: ModelRecord, *, evict: bool) -> AtriumError | None:
        """Loads a model in a task of its own; returns why it could not."""
        model = record.entry.id
        try:
            async with self._lifecycle.moving:
                await self._shelf.bring_in(record, evict=evict)
        except (Overloaded, Cancelled) as error:
            record.state = ModelState.UNLOADED
            return error
        except Exception as error:
            # A loader's edge: whatever a model's files do to it, the service lives on.
            _log.exception("%s could not be loaded", model)
            detail = error.message if isinstance(error, AtriumError) else _described(error)
            record.fail(detail, self._lifecycle.clock())
            return _for_operators(record, error)
        finally:
            del self._loads[model]
        return None


def _refuse_busy(record: ModelRecord) -> None:
    if record.users:
        raise Conflict(
            f"{record.users} requests are running on {record.entry.id}.", reason="MODEL_BUSY"
        )


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _for_operators(record: ModelRecord, error: Exception) -> AtriumError:
    """Says what went wrong, without the traceback, whose frames would keep the model."""
    if isinstance(error, Unavailable):  # it says already what to do
        return type(error)(error.message, reason=error.reason, retry_after=error.retry_after)
    message = f"The model {record.entry.id} could not be loaded: {record.detail}"
    return Unavailable(message, reason="MODEL_FAILED")


def _for_callers(record: ModelRecord, *, retry_seconds: float = 0.0) -> Unavailable:
    """Says that a model failed, and to its tenants no more than that."""
    left = max(retry_seconds, 1.0)
    return Unavailable(
        f"The model {record.entry.id!r} has failed; it is tried again later.",
        reason="MODEL_FAILED",
        retry_after=timedelta(seconds=left),
    )
