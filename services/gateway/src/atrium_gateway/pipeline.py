"""The path of every metered request: admit, call the service, meter, settle exactly once.

The endpoints in `api/` make a `Job` and read the `Run`'s events; `admission` decides
and keeps the books; `upstreams/` does the calling. Nothing here knows HTTP or gRPC.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Generic, TypeVar

import structlog

from atrium_common.domain import Capability, Usage
from atrium_common.errors import AtriumError, Cancelled, QuotaExceeded
from atrium_gateway.admission import Admission, Outcome, Reservation
from atrium_gateway.auth.principal import Principal
from atrium_gateway.observability.work import telling, upstream
from atrium_gateway.quota.limits import Unit
from atrium_gateway.quota.measure import units_left, work_left
from atrium_gateway.upstreams.port import Caller, UpstreamCall

logger = structlog.get_logger(__name__)

E = TypeVar("E")

DEADLINES: dict[Capability, timedelta] = {
    Capability.CHAT: timedelta(minutes=10),
    Capability.COMPLETION: timedelta(minutes=10),
    Capability.EMBEDDING: timedelta(minutes=2),
    Capability.TRANSCRIPTION: timedelta(hours=1),
    Capability.SPEECH: timedelta(hours=1),
    Capability.TEXT_TO_IMAGE: timedelta(minutes=30),
    Capability.IMAGE_TO_IMAGE: timedelta(minutes=30),
    Capability.IMAGE_TO_TEXT: timedelta(minutes=30),
}
"""Longest time that a request may take, upload excluded, by capability."""

AUDIO_SHARE = timedelta(minutes=1)
"""Live audio is reserved in pieces of this length."""
_FITS = 2
"""Closer looks at a job that a limit refuses: where a cost does, the second knows the input."""
SOON = timedelta(seconds=2)
"""A limit that has room again within this time ends no running work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Generic[E]):
    """Work that an endpoint wants done.

    Attributes:
        capability: What it counts as.
        model: Catalogue id.
        method: Full name of the RPC, for the ledger.
        estimate: Upper bound of what it may consume.
        call: Starts it.
        fit: Makes a smaller job after a limit refused this one, or raises; it gets the
            number of units that are left.
        fits: The unit whose limits `fit` knows how to keep: tokens, audio seconds or pages.
    """

    capability: Capability
    model: str
    method: str
    estimate: Usage
    call: Callable[[Caller], UpstreamCall[E]]
    fit: Callable[[int], Awaitable["Job[E]"]] | None = None
    fits: Unit = Unit.TOKENS


class Run(Generic[E]):
    """An admitted job: iterate it once for the service's messages."""

    def __init__(
        self,
        reservation: Reservation,
        call: UpstreamCall[E],
        *,
        bound: Usage,
        renew: Callable[[str, Usage], Awaitable[object]],
    ) -> None:
        """Args: bound: What is reserved. renew: Reserves more for a reservation's id."""
        self.reservation = reservation
        self.bound = bound
        self._call = call
        self._renew = renew
        self._ended = False

    @property
    def usage(self) -> Usage:
        """What was consumed so far."""
        return self._call.usage or Usage()

    @property
    def usage_by_model(self) -> Sequence[Usage]:
        """The same by model, where several work for one request; else empty."""
        return self._call.usage_by_model

    @property
    def outcome(self) -> Outcome:
        """COMPLETED if every message was read, else the reader has turned away."""
        return Outcome.COMPLETED if self._ended else Outcome.CANCELLED

    def __aiter__(self) -> "Run[E]":
        return self

    async def __anext__(self) -> E:
        """Waits for the service's next message; raises errors of the tree."""
        try:
            return await anext(self._call)
        except StopAsyncIteration:
            self._ended = True
            raise

    def complete(self) -> None:
        """Says that nothing is missing, although the call was not read to its end."""
        self._ended = True

    async def cover(self, audio: timedelta) -> None:
        """Makes the reservation hold for so much audio in all: it grows by a minute.

        Where a minute does not fit, it grows by what the limits leave; one that has
        room again in a moment is waited for.

        Raises:
            QuotaExceeded: A limit refuses; the reservation is as it was.
        """
        waited = False
        while audio > self.bound.input_audio:
            try:
                await self._grow(AUDIO_SHARE)
            except QuotaExceeded as err:
                if left := units_left(err, Unit.AUDIO_SECONDS):
                    await self._grow(timedelta(seconds=left))
                elif err.retry_after is not None and err.retry_after <= SOON and not waited:
                    waited = True
                    await asyncio.sleep(err.retry_after.total_seconds())
                else:
                    raise

    async def _grow(self, audio: timedelta) -> None:
        grown = replace(self.bound, input_audio=self.bound.input_audio + audio)
        await self._renew(self.reservation.id, grown)
        self.bound = grown


class Pipeline:
    """Runs jobs; one per process."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._pending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def run(
        self, principal: Principal, job: Job[E], *, request_id: str
    ) -> AsyncIterator[Run[E]]:
        """Admits a job, starts it, and settles it when the block is left, however it is.

        The settlement is on disk when the block has ended, except after a
        cancellation in its midst: then it is finished in the background.

        Raises:
            QuotaExceeded: A limit refuses; nothing is charged.
            PermissionDenied: The credential does not allow the capability.
        """
        job, reservation = await self._admit(principal, job, request_id)
        call: UpstreamCall[E] | None = None
        try:
            with upstream(job.capability, job.model) as span:
                call = job.call(_caller(principal, reservation, job, request_id))
                run = Run(reservation, call, bound=job.estimate, renew=self._admission.renew)
                with (
                    telling(span, run),
                    _Heartbeat(self._admission, reservation, run, self._spawn),
                ):
                    yield run
        except BaseException as err:
            if call is not None:
                call.cancel()
            if call is None or (inquiry := call.inquiry()) is None:
                await self._close(reservation, call, err)
            else:
                # A task of its own: who has left must not end it.
                asking = self._ask_and_close(reservation, call, err, inquiry, job.estimate)
                await asyncio.shield(self._spawn(asking))
            raise
        call.cancel()
        await self._admission.settle(reservation.id, run.usage, run.outcome, run.usage_by_model)

    async def drain(self) -> None:
        """Waits until every renewal has its answer; called at shutdown."""
        while self._pending:
            await asyncio.wait(self._pending)

    async def _admit(
        self, principal: Principal, job: Job[E], request_id: str
    ) -> tuple[Job[E], Reservation]:
        for _ in range(_FITS):
            try:
                return job, await self._reserve(principal, job, request_id)
            except QuotaExceeded as err:
                # The first estimate takes a byte for a token, or a minute for any speech.
                # Before the request is refused for that, it is looked at more closely.
                left = work_left(err, job.estimate, job.fits, partial(self._price, job))
                if job.fit is None or not left:
                    raise
                job = await job.fit(left)
        return job, await self._reserve(principal, job, request_id)

    def _price(self, job: Job[E], usage: Usage) -> int:
        return self._admission.price(job.model, usage)

    async def _reserve(self, principal: Principal, job: Job[E], request_id: str) -> Reservation:
        return await self._admission.admit(
            principal,
            capability=job.capability,
            model=job.model,
            estimate=job.estimate,
            request_id=request_id,
            method=job.method,
        )

    async def _close(
        self, reservation: Reservation, call: UpstreamCall[E] | None, error: BaseException
    ) -> None:
        usage, parts = (call.usage, call.usage_by_model) if call else (None, ())
        if isinstance(error, asyncio.CancelledError | GeneratorExit | Cancelled):
            outcome = Outcome.CANCELLED
            await self._admission.settle(reservation.id, usage or Usage(), outcome, parts)
        elif usage is not None:
            await self._admission.settle(reservation.id, usage, Outcome.FAILED, parts)
        else:
            reason = error.reason if isinstance(error, AtriumError) else "INTERNAL"
            await self._admission.refund(reservation.id, reason)

    async def _ask_and_close(
        self,
        reservation: Reservation,
        call: UpstreamCall[E],
        error: BaseException,
        inquiry: Awaitable[None],
        bound: Usage,
    ) -> None:
        """Closes after the service has told what it did; charges the bound if it can't be asked."""
        try:
            await inquiry
        except AtriumError as err:
            logger.warning("usage not told", reservation=reservation.id, reason=err.reason)
            await self._admission.settle(reservation.id, bound, Outcome.CANCELLED)
        else:
            await self._close(reservation, call, error)

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        return task


class _Heartbeat(Generic[E]):
    """Renews a reservation's lease every third of it, while its block runs."""

    def __init__(
        self,
        admission: Admission,
        reservation: Reservation,
        run: Run[E],
        spawn: Callable[[Coroutine[object, object, None]], asyncio.Task[None]],
    ) -> None:
        self._admission = admission
        self._reservation = reservation
        self._run = run
        self._spawn = spawn
        self._pause = reservation.lease.total_seconds() / 3

    def __enter__(self) -> None:
        # A timer, not a task: almost every request ends before the first beat.
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._beat)

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _beat(self) -> None:
        self._spawn(self._renew())
        self.__enter__()

    async def _renew(self) -> None:
        used = self._run.usage
        grown = used if exceeds(used, self._run.bound) else None
        try:
            await self._admission.renew(self._reservation.id, grown)
        except AtriumError as err:
            # The work goes on: what it used is charged at its end all the same.
            logger.warning("lease not renewed", reservation=self._reservation.id, reason=err.reason)


def exceeds(used: Usage, bound: Usage) -> bool:
    """True if any unit of `used` is over the bound."""
    return (
        used.input_tokens > bound.input_tokens
        or used.output_tokens > bound.output_tokens
        or used.characters > bound.characters
        or used.input_audio > bound.input_audio
        or used.output_audio > bound.output_audio
        or used.images > bound.images
        or used.millimegapixel_steps > bound.millimegapixel_steps
        or used.pages > bound.pages
    )


def _caller(principal: Principal, reservation: Reservation, job: Job[E], request_id: str) -> Caller:
    allowed = DEADLINES.get(job.capability, timedelta(minutes=10))
    return Caller(
        tenant=principal.tenant,
        weight=principal.weight,
        reservation_id=reservation.id,
        request_id=request_id,
        deadline=time.monotonic() + allowed.total_seconds(),
    )
