"""One process's hold on its keys: leases are renewed, endings are finished, all is counted.

`api/keyed.py` opens a `Hold` per request with a key; `core.py` sweeps.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import structlog
from prometheus_client import CollectorRegistry, Counter

from atrium_common.errors import AtriumError
from atrium_common.telemetry.semantics import IDEMPOTENCY
from atrium_common.telemetry.spans import hop
from atrium_gateway.background import looking
from atrium_gateway.idempotency.domain import Attempt, KeptAnswer
from atrium_gateway.idempotency.recorder import Recorder
from atrium_gateway.idempotency.store import AnswerStore, Ending

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

    def count(self, outcome: str) -> None:
        """Counts what became of a request."""
        self._outcomes.labels(outcome).inc()


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
        end = self._store.keep(self._attempt, status=status, headers=headers, body=self.body)
        await self._close("not_kept" if self.body.over else "kept", end)

    async def forgo(self) -> None:
        """Notes that the request has run, without its answer."""
        await self._close("not_kept", self._store.forgo(self._attempt))

    async def release(self) -> None:
        """Gives the key back."""
        await self._close("released", self._store.release(self._attempt))

    async def _close(self, outcome: str, end: Ending) -> None:
        self.closed = True
        self._timer.cancel()
        end.add_done_callback(partial(self._ended, outcome))
        # An answer goes out even if it is not kept. The end comes, and is counted, even if the
        # request is cancelled.
        with suppress(AtriumError):
            await asyncio.shield(end)

    def _ended(self, outcome: str, end: Ending) -> None:
        self.body.close()
        error = end.exception()
        held = error is None and end.result()
        self._keeper.count(outcome if held else "lost")
        request_id = self._attempt.request_id
        if isinstance(error, AtriumError):
            # The key is free when its lease ends.
            logger.warning("idempotency key not closed", request_id=request_id, reason=error.reason)
        elif not held:
            logger.warning("idempotency key lost: the lease had ended", request_id=request_id)

    def _beat(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._beat)
        self._store.renew(self._attempt).add_done_callback(self._renewed)

    def _renewed(self, end: Ending) -> None:
        if isinstance(error := end.exception(), AtriumError):
            logger.warning(
                "idempotency lease not renewed",
                request_id=self._attempt.request_id,
                reason=error.reason,
            )


@asynccontextmanager
async def sweeping(store: AnswerStore) -> AsyncIterator[None]:
    """Forgets what has ended, every minute, for as long as it is entered."""

    async def sweep() -> None:
        while await store.sweep():
            pass

    async with looking(sweep, every=SWEEP_SECONDS, name="idempotency-sweeper", at_once=False):
        yield
