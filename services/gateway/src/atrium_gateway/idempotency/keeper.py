"""One process's hold on its keys: leases are renewed, endings are finished, all is counted.

`api/keyed.py` opens a `Hold` per request with a key; `core.py` sweeps.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import structlog
from prometheus_client import CollectorRegistry, Counter

from atrium_common.errors import AtriumError
from atrium_common.telemetry.semantics import IDEMPOTENCY
from atrium_common.telemetry.spans import hop
from atrium_gateway.background import looking
from atrium_gateway.idempotency.domain import Attempt, KeptAnswer
from atrium_gateway.idempotency.recorder import Recorder
from atrium_gateway.idempotency.store import AnswerStore

logger = structlog.get_logger(__name__)

SWEEP_SECONDS = 60.0


class Keeper:
    """What requests with a key go through; one per process.

    Args:
        store: Keys and answers.
        registry: Takes the metric.
        new_id: Names attempts; 36 characters at most, never the same twice.
    """

    def __init__(
        self, store: AnswerStore, *, registry: CollectorRegistry, new_id: Callable[[], str]
    ) -> None:
        self.store = store
        self.new_id = new_id
        self._ends: set[asyncio.Task[None]] = set()
        self._outcomes = Counter(
            "atrium_idempotent_requests",
            "Requests with an Idempotency-Key, by what became of them.",
            ["outcome"],
            registry=registry,
        )

    async def claim(self, attempt: Attempt) -> "KeptAnswer | Hold":
        """Takes the key, or gives what is kept for it; raises as `AnswerStore.claim`."""
        try:
            with hop(IDEMPOTENCY):
                answer = await self.store.claim(attempt)
        except AtriumError as err:
            self._outcomes.labels(err.reason.lower()).inc()
            raise
        if answer is not None:
            self._outcomes.labels("replayed").inc()
            return answer
        return Hold(self, attempt)

    def spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Starts what must come to its end, even if its request is cancelled."""
        task = asyncio.ensure_future(work)
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)
        return task

    def count(self, outcome: str) -> None:
        """Counts what became of a request."""
        self._outcomes.labels(outcome).inc()

    async def drain(self) -> None:
        """Waits until every ending is in the database; called at shutdown."""
        while self._ends:
            await asyncio.wait(self._ends)


class Hold:
    """A key that a running request has, until one of its endings is called."""

    def __init__(self, keeper: Keeper, attempt: Attempt) -> None:
        self.body = Recorder(keeper.store.bounds.answer_bytes)
        self.closed = False
        self._keeper = keeper
        self._store = keeper.store
        self._attempt = attempt
        self._pause = keeper.store.bounds.lease.total_seconds() / 3
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._beat)

    async def keep(self, *, status: int, headers: tuple[tuple[str, str], ...]) -> None:
        """Stores the answer, unless a bound forbids it."""
        work = self._store.keep(self._attempt, status=status, headers=headers, body=self.body)
        await self._close("not_kept" if self.body.over else "kept", work)

    async def forgo(self) -> None:
        """Notes that the request has run, without its answer."""
        await self._close("not_kept", self._store.forgo(self._attempt))

    async def release(self) -> None:
        """Gives the key back."""
        await self._close("released", self._store.release(self._attempt))

    async def _close(self, outcome: str, work: Coroutine[object, object, bool]) -> None:
        self.closed = True
        self._timer.cancel()
        await asyncio.shield(self._keeper.spawn(self._end(outcome, work)))

    async def _end(self, outcome: str, work: Coroutine[object, object, bool]) -> None:
        request_id = self._attempt.request_id
        try:
            held = await work
            self._keeper.count(outcome if held else "lost")
            if not held:
                logger.warning("idempotency key lost: the lease had ended", request_id=request_id)
        except AtriumError as err:
            # The answer goes out all the same; the key is free when its lease ends.
            self._keeper.count("lost")
            logger.warning("idempotency key not closed", request_id=request_id, reason=err.reason)
        finally:
            self.body.close()

    def _beat(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._beat)
        self._keeper.spawn(self._renew())

    async def _renew(self) -> None:
        try:
            await self._store.renew(self._attempt)
        except AtriumError as err:
            logger.warning(
                "idempotency lease not renewed",
                request_id=self._attempt.request_id,
                reason=err.reason,
            )


@asynccontextmanager
async def sweeping(store: AnswerStore) -> AsyncIterator[None]:
    """Forgets what has ended, every minute, for as long as it is entered."""

    async def sweep() -> None:
        while await store.sweep():
            pass

    async with looking(sweep, every=SWEEP_SECONDS, name="idempotency-sweeper", at_once=False):
        yield
