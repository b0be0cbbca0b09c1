"""One call's reservation: kept alive, grown when it falls short, settled exactly once.

Made by `interceptors/usage.py`; `edge.py` shows it every message of the call.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Literal

from google.protobuf.message import Message

from atrium.common.v1 import usage_pb2
from atrium_common.admission_client import AdmissionClient, Grant, Outcome
from atrium_common.domain import Usage
from atrium_common.errors import (
    AtriumError,
    DeadlineExceeded,
    InternalError,
    NotFound,
    Overloaded,
    QuotaExceeded,
    Unavailable,
)
from atrium_common.interceptors.settlements import Settlements
from atrium_common.service import WorkEstimate
from atrium_common.wire import duration_from_proto, usage_from_proto

Interrupt = Callable[[AtriumError], None]
"""Stops the running call with an error."""

_COUNTS = (
    "input_tokens",
    "output_tokens",
    "characters",
    "images",
    "millimegapixel_steps",
    "pages",
)
_TIMES = ("input_audio", "output_audio")
_PASSING = (Unavailable, DeadlineExceeded, Overloaded, InternalError)

_GROW_PAUSE_SECONDS = 1.0


class Meter:
    """The reservation of one running call."""

    def __init__(
        self,
        admission: AdmissionClient,
        grant: Grant,
        estimate: WorkEstimate,
        *,
        settlements: Settlements,
        interrupt: Interrupt,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes over `grant` and begins to renew it at a third of its lease."""
        self.grant = grant
        self._admission = admission
        self._estimate = estimate
        self._bound = estimate.usage
        self._settlements = settlements
        self._interrupt = interrupt
        self._clock = clock
        self._usage: Usage | None = None
        self._by_model: Sequence[Usage] | None = None
        self._message: Message | None = None
        self._closing: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._growing: asyncio.Task[None] | None = None
        self._grow_not_before = clock()
        self._timer: asyncio.TimerHandle | None = None
        self._take(grant.lease)

    def see(self, message: Message) -> bool:
        """Remembers the usage that a response message carries, if it does.

        Returns:
            Whether it is over the reservation, so that `grow` is due.
        """
        try:
            if not message.HasField("usage"):
                return False
        except ValueError:  # this response type has no such field
            return False
        self._message = message
        self._usage = None
        self._by_model = None
        return self._is_short(message.usage)  # type: ignore[attr-defined]

    def report(self, usage: Usage, by_model: Sequence[Usage] = ()) -> None:
        """Remembers the usage of a call that is still running; see `context.report_usage`."""
        self._usage = usage
        self._by_model = by_model
        if self._growing is None and _grown(self._bound, usage, self._estimate.usage) is not None:
            self._growing = asyncio.get_running_loop().create_task(self._grow_apart())

    def seen(self) -> Usage | None:
        """Returns the last usage seen, or ``None`` before any."""
        if self._usage is None and self._message is not None:
            self._usage = usage_from_proto(self._message.usage)  # type: ignore[attr-defined]
        return self._usage

    def seen_by_model(self) -> Sequence[Usage]:
        """Returns the last usage seen by model, where it was told so; else empty."""
        if self._by_model is None:
            parts = getattr(self._message, "usage_by_model", ())
            self._by_model = [usage_from_proto(part) for part in parts]
        return self._by_model

    async def grow(self) -> None:
        """Grows the reservation over what was seen, by the estimate once more.

        Raises:
            QuotaExceeded: Not even what was seen fits.
            Unavailable: The reservation is gone.
        """
        seen = self.seen()
        if seen is None or self._clock() < self._grow_not_before:
            return
        bound = _grown(self._bound, seen, self._estimate.usage)
        if bound is None:
            return
        try:
            try:
                lease = await self._renewed(bound)
            except QuotaExceeded:
                # The step ahead does not fit; what is produced already may.
                bound = _grown(self._bound, seen, None) or bound
                lease = await self._renewed(bound)
        except NotFound as error:
            raise _gone() from error
        except _PASSING:
            # The lease still holds and the heartbeat watches over it; a later message
            # asks again, not each one: the answer may take its whole timeout.
            self._grow_not_before = self._clock() + _GROW_PAUSE_SECONDS
            return
        self._bound = bound
        self._take(lease)

    async def cover(self, work: Usage) -> None:
        """Grows the reservation to all of `work`; see `context.cover_work`."""
        bound = _grown(self._bound, work, None)
        if bound is None:
            return
        try:
            lease = await self._renewed(bound)
        except NotFound as error:
            raise _gone() from error
        self._bound = bound
        self._take(lease)

    def close(self, outcome: Outcome, reason: str = "") -> "asyncio.Task[None]":
        """Settles what was seen, or refunds a call that ended badly before any.

        Runs apart from the call; a second call returns the first one's task.

        Args:
            outcome: How the call ended.
            reason: Of the error that ended it, for a refund's record.
        """
        if self._closing is None:
            self._stop_beat()
            for task in (self._renewing, self._growing):
                if task is not None:
                    task.cancel()
            self._closing = self._settlements.start(self._close(outcome, reason))
        return self._closing

    async def _close(self, outcome: Outcome, reason: str) -> None:
        identifier = self.grant.reservation_id
        usage = self.seen()
        if usage is None and outcome is not Outcome.COMPLETED:
            await self._settlements.close(
                lambda: self._admission.refund(
                    identifier, reason or outcome.name, tenant=self.grant.tenant
                ),
                reservation_id=identifier,
                result="refunded",
                until=self._expires,
            )
            return
        consumed = usage or Usage()
        if not consumed.model:
            consumed = replace(consumed, model=self._estimate.model)
        by_model = self.seen_by_model()
        await self._settlements.close(
            lambda: self._admission.settle(
                identifier, consumed, outcome, by_model, tenant=self.grant.tenant
            ),
            reservation_id=identifier,
            result=outcome.value,
            until=self._expires,
        )

    def _take(self, lease: timedelta) -> None:
        self._expires = self._clock() + lease.total_seconds()
        self._beat_in(lease.total_seconds() / 3)

    def _beat_in(self, seconds: float) -> None:
        self._stop_beat()
        # A timer, not a task: most calls end long before their first renewal.
        self._timer = asyncio.get_running_loop().call_later(seconds, self._beat)

    def _stop_beat(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        if self._closing is None:
            self._renewing = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        try:
            self._take(await self._renewed())
        except _PASSING:
            left = self._expires - self._clock()
            if left > 0:
                self._beat_in(min(left, max(left / 4, 0.05)))
            else:
                self._interrupt(Unavailable("The admission authority can't be reached."))
        except NotFound:
            self._interrupt(_gone())
        except AtriumError as error:
            self._interrupt(error)

    async def _renewed(self, bound: Usage | None = None) -> timedelta:
        identifier, tenant = self.grant.reservation_id, self.grant.tenant
        return await self._admission.renew(identifier, bound, tenant=tenant)

    async def _grow_apart(self) -> None:
        try:
            await self.grow()
        except AtriumError as error:
            self._interrupt(error)
        finally:
            self._growing = None

    def _is_short(self, usage: usage_pb2.Usage) -> bool:
        bound = self._bound
        return (
            usage.output_tokens > bound.output_tokens
            or usage.input_tokens > bound.input_tokens
            or (
                usage.HasField("input_audio")
                and usage.input_audio.ToTimedelta() > bound.input_audio
            )
            or (
                usage.HasField("output_audio")
                and usage.output_audio.ToTimedelta() > bound.output_audio
            )
            or usage.characters > bound.characters
            or usage.images > bound.images
            or usage.millimegapixel_steps > bound.millimegapixel_steps
            or usage.pages > bound.pages
        )


def _gone() -> Unavailable:
    # Closed as estimated over there: what follows would be charged to nobody.
    return Unavailable("The reservation of this call is gone.")


def _length(usage: usage_pb2.Usage, unit: Literal["input_audio", "output_audio"]) -> timedelta:
    return duration_from_proto(getattr(usage, unit)) if usage.HasField(unit) else timedelta()


def _grown(bound: Usage, seen: Usage, step: Usage | None) -> Usage | None:
    """Returns a bound over `seen`, or ``None`` if `bound` covers it.

    A unit that falls short is set to what was seen and, with `step`, the first
    estimate of it once more; one that was not estimated is doubled.
    """
    changes: dict[str, int] = {}
    for unit in _COUNTS:
        amount: int = getattr(seen, unit)
        if amount > getattr(bound, unit):
            changes[unit] = amount + ((getattr(step, unit) or amount) if step else 0)
    lengths: dict[str, timedelta] = {}
    for unit in _TIMES:
        length: timedelta = getattr(seen, unit)
        if length > getattr(bound, unit):
            lengths[unit] = length + ((getattr(step, unit) or length) if step else timedelta())
    if not changes and not lengths:
        return None
    return replace(bound, **changes, **lengths)  # type: ignore[arg-type]
