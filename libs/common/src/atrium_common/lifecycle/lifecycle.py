"""The lifecycle of all models of a process: one at a time moves, and all share the memory.

`__main__` makes one; engines' hosts register their models with it, and `server.py` runs its
sweeper. The package's docstring says what it promises.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import timedelta

from atrium_common.domain import ModelState
from atrium_common.errors import Cancelled, Overloaded, Unavailable
from atrium_common.lifecycle.budget import evictions, held_bytes
from atrium_common.lifecycle.memory import release_memory
from atrium_common.lifecycle.policy import LifecyclePolicy
from atrium_common.lifecycle.record import ModelRecord

_LOOK_SECONDS = 1.0
_RETRY = timedelta(seconds=5)

_log = logging.getLogger(__name__)


class NoRoomAtStart(Overloaded):
    """A model that was to be loaded without evicting another does not fit."""


class Lifecycle:
    """What the hosts of one process share.

    Attributes:
        policy: What the operator decided.
        clock: Monotonic seconds.
        moving: Held while a model is loaded or unloaded; first come, first served.
        release: Gives freed memory back; blocks, called in a thread.
    """

    def __init__(
        self,
        policy: LifecyclePolicy | None = None,
        *,
        at_start: Collection[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        release: Callable[[], None] = release_memory,
    ) -> None:
        """Makes an empty one.

        Args:
            policy: Default: models stay for ever, and there is no limit.
            at_start: Ids of the models to load at start; ``None`` means all.
            clock: Monotonic seconds, for idleness and pauses.
            release: Gives freed memory back.
        """
        self.policy = policy or LifecyclePolicy()
        self.clock = clock
        self.moving = asyncio.Lock()
        self.release = release
        self._at_start = at_start
        self._records: list[ModelRecord] = []
        self._changed = asyncio.Event()

    def register(self, record: ModelRecord) -> None:
        """Takes a host's model in; it then shares the budget and the sweeper."""
        self._records.append(record)

    def forget(self, record: ModelRecord) -> None:
        """Takes a closed host's model out."""
        with suppress(ValueError):
            self._records.remove(record)

    def starts_with(self, model: str) -> bool:
        """Tells whether a model is to be loaded at start."""
        return self._at_start is None or model in self._at_start

    def changed(self) -> None:
        """Says that a model became idle, left, or is no longer waited for."""
        # Each change has its own event, so that no waiter can miss one by being slow.
        self._changed.set()
        self._changed = asyncio.Event()

    async def make_room(self, record: ModelRecord, need: int, *, evict: bool) -> None:
        """Evicts idle models until one more fits; call it with `moving` held.

        Args:
            record: The model that is to be loaded.
            need: Bytes that it will hold.
            evict: False to take only what is free now.

        Raises:
            Unavailable: It is larger than the whole budget.
            NoRoomAtStart: Nothing is to be evicted, and it does not fit.
            Overloaded: Busy models did not make room in time.
            Cancelled: Nobody waits for it any more.
        """
        limit = self.policy.memory_bytes
        if limit is None or not need:
            return
        model = record.entry.id
        if need > limit:
            raise Unavailable(
                f"The model {model} needs {_mib(need)}; the service's budget is {_mib(limit)}.",
                reason="MODEL_TOO_LARGE",
            )
        loop = asyncio.get_running_loop()
        end = loop.time() + self.policy.patience
        while (missing := held_bytes(self._records) + need - limit) > 0:
            if not evict:
                raise NoRoomAtStart(f"{model} does not fit into the memory budget beside others.")
            if plan := evictions(self._records, missing):
                _log.info("evicting %s for %s", plan[0].entry.id, model)
                await plan[0].drop()
            elif not record.waiting:
                raise Cancelled(f"Nobody waits for {model} any more.")
            elif not await self._change_before(end):
                raise Overloaded(
                    f"The model {model} has to wait: models in use take the memory.",
                    reason="MODELS_BUSY",
                    retry_after=_RETRY,
                )

    async def shrink(self) -> None:
        """Evicts idle models that are too much, after one turned out larger than expected."""
        limit = self.policy.memory_bytes
        while limit is not None and (excess := held_bytes(self._records) - limit) > 0:
            if not (plan := evictions(self._records, excess)):
                _log.warning("loaded models exceed the memory budget by %s", _mib(excess))
                return
            await plan[0].drop()

    async def sweep(self) -> None:
        """Unloads every model that has been idle too long; tries failed ones again."""
        for record in tuple(self._records):
            if record.due(self.clock()):
                async with self.moving:
                    if record.due(self.clock()):  # it may have been used meanwhile
                        _log.info("unloading %s: idle", record.entry.id)
                        await record.drop()
            elif record.state is ModelState.FAILED and self.clock() >= record.retry_at:
                record.reload()

    async def run(self) -> None:
        """Sweeps until it is cancelled."""
        while True:
            changed = self._changed
            try:
                await self.sweep()
            except Exception:
                # The task's edge: a model that does not close must not keep others loaded.
                _log.exception("a model could not be unloaded")
            # Not `wait_for`: in Python 3.11 it loses a cancellation that comes with the change.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await changed.wait()

    async def _change_before(self, end: float) -> bool:
        left = end - asyncio.get_running_loop().time()
        if left <= 0:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._changed.wait()
        return True


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB"
