"""Admission: reserve before the work, settle after it; the pipeline and the servicer call it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import msgspec
import structlog

from atrium_common.domain import Usage
from atrium_common.errors import NotFound, Unavailable
from atrium_gateway.auth.principal import Principal
from atrium_gateway.books import Books, Held
from atrium_gateway.quota.limits import LimitState, Meter
from atrium_gateway.quota.measure import reserve_amounts, settle_amounts
from atrium_gateway.quota.policy import LimitPolicy
from atrium_gateway.quota.store import GatewayQuotaStore, QuotaStore
from atrium_gateway.quota.verdict import Reading
from atrium_gateway.sweeper import Sweeper
from atrium_gateway.tenants.directory import Directory
from atrium_gateway.usage.billing import close_record, settle_record
from atrium_gateway.usage.port import Ledger
from atrium_gateway.usage.price import PriceSource
from atrium_gateway.usage.records import (
    REFUNDED,
    OpenRecord,
    Outcome,
    Units,
    UsageEvent,
    units_of,
)
from atrium_gateway.usage.split import shares

__all__ = ["Admission", "LimitState", "Outcome", "Reservation"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reservation:
    """Permission to do one piece of work.

    Attributes:
        id: UUIDv7; names it in the calls that follow, and the event in the ledger.
        principal: Who is charged.
        lease: Time within which it must be renewed, settled or refunded.
        limits: Limits that applied, tightest first; empty for a tenant without any.
    """

    id: str
    principal: Principal
    lease: timedelta
    limits: tuple[LimitState, ...]


class Admission:
    """Checks limits, holds leases and writes the ledger.

    Args:
        directory: Knows tenants and their limits.
        policy: Picks the limits that apply.
        store: Counts against them.
        shared: The same, where other processes count in it, too.
        ledger: Records what was granted and consumed.
        prices: Tells the prices in force, for settlements.
        lease: Life of a reservation that is not renewed.
        clock: Returns Unix seconds.
        new_id: Returns a fresh UUIDv7.
    """

    def __init__(
        self,
        *,
        directory: Directory,
        policy: LimitPolicy,
        store: QuotaStore,
        shared: GatewayQuotaStore | None = None,
        ledger: Ledger,
        prices: PriceSource,
        lease: timedelta,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._directory = directory
        self._policy = policy
        self._ledger = ledger
        self._prices = prices
        self._lease = lease
        self._clock = clock
        self._new_id = new_id
        self._books = Books(store=store, shared=shared, ledger=ledger, clock=clock)
        self._closing: dict[str, asyncio.Task[None]] = {}
        self.sweeper = Sweeper(self._books, prices=prices, clock=clock)
        """Ends what nobody closes; see `expire`."""

    @property
    def open_reservations(self) -> int:
        """Reservations that are neither settled, refunded nor expired."""
        return len(self._books.open)

    async def admit(
        self,
        principal: Principal,
        *,
        capability: str,
        model: str,
        estimate: Usage,
        request_id: str,
        method: str,
        lease: timedelta | None = None,
    ) -> Reservation:
        """Reserves an upper bound against every limit that applies, or nothing.

        Args:
            principal: Who asks.
            capability: What for, a value of `Capability`.
            model: Catalogue id, resolved from any alias.
            estimate: Upper bound of what the work may consume.
            request_id: The caller's id of the request, for the ledger.
            method: Route or RPC, for the ledger.
            lease: Life without a renewal, when the caller's deadline is known; the
                configured one if not given.

        Raises:
            PermissionDenied: The tenant is blocked, or the credential allows the capability
                or the model not.
            QuotaExceeded: A limit refuses.
            Unavailable: The ledger or the database can't be written or read now, or a shared
                store is away and the work may not be counted here alone.
        """
        principal.demand_model(model)
        meters = await self._allowed(principal, capability, model)
        amounts = self._bound(meters, model, estimate)
        span = lease or self._lease
        record = OpenRecord(
            self._new_id(),
            principal.tenant,
            principal.subject,
            capability,
            model,
            method,
            request_id,
            self._now_ms(),
            units_of(estimate),
            principal.key_id,
        )
        held = Held(record, tuple(meters), amounts, span.total_seconds())
        paid = self._prices.at(record.started_ms).charged(model)
        limits = await self._books.reserve(held, paid=paid)
        held.expires = self._clock() + held.lease
        self._books.open[record.id] = held
        self._ledger.open(record)
        return Reservation(record.id, principal, span, limits)

    async def renew(
        self, reservation_id: str, estimate: Usage | None = None, *, tenant: str = ""
    ) -> timedelta:
        """Prolongs a lease, and grows the reservation to a new total if given.

        Args:
            reservation_id: The reservation.
            estimate: Upper bound in total; leaves the reservation's alone if not given.
            tenant: Whose it is, where another process may have made it.

        Returns:
            The time until the lease passes again.

        Raises:
            QuotaExceeded: The growth does not fit; the reservation is as it was.
            NotFound: The reservation is closed.
            Unavailable: The store is away.
        """
        known = self._books.open.get(reservation_id)
        held = known or await self._books.elsewhere(reservation_id, tenant)
        if held is None:
            raise NotFound("The reservation is closed or its lease has passed.")
        grown = None
        if estimate is not None:
            amounts = self._bound(held.meters, held.record.model, estimate)
            record = msgspec.structs.replace(held.record, reserved=units_of(estimate))
            most = [max(pair) for pair in zip(held.amounts, amounts, strict=True)]
            grown = msgspec.structs.replace(held, record=record, amounts=most)
        await self._books.renew(held, grown)
        if grown is not None and reservation_id in self._books.open:
            held.record, held.amounts = grown.record, grown.amounts
            self._ledger.open(held.record)
        return timedelta(seconds=held.lease)

    async def settle(
        self,
        reservation_id: str,
        usage: Usage,
        outcome: Outcome,
        by_model: Sequence[Usage] = (),
        *,
        tenant: str = "",
    ) -> None:
        """Replaces the reservation by what was consumed; returns when that is on disk.

        What exceeds the reservation is recorded and counted truthfully. Closing again
        changes nothing. A caller that is cancelled does not stop it.

        Args:
            reservation_id: The reservation.
            usage: What was consumed in total; limits count it.
            outcome: How the work ended.
            by_model: The same by model, if several did it: each gets an event of its own,
                at its own price. Where it does not add up to `usage`, it is ignored.
            tenant: Whose it is, where another process may have made it.

        Raises:
            NotFound: There never was such a reservation.
            Unavailable: The disk can't be written, the record is kept and tried again; or
                another process made it and the store is away.
        """
        held = await self._take(reservation_id, tenant)
        if held is None:
            return
        parts = shares(usage, by_model, model=held.record.model)
        if parts is None:
            _log.error("usage_by_model_ignored", request_id=held.record.request_id)
            parts = [usage]
        events = settle_record(
            held.record, parts, outcome, ended_ms=self._now_ms(), prices=self._prices
        )
        consumed = settle_amounts(
            held.meters, usage, lambda: sum(event.cost_nano for event in events)
        )
        await self._close(held, events, consumed)

    async def refund(self, reservation_id: str, reason: str, *, tenant: str = "") -> None:
        """Gives the whole reservation back; recorded, charged nothing. Idempotent.

        Args:
            reservation_id: The reservation.
            reason: Why, as a reason of the error tree.
            tenant: Whose it is, where another process may have made it.

        Raises:
            NotFound: There never was such a reservation.
            Unavailable: As `settle`.
        """
        held = await self._take(reservation_id, tenant)
        if held is None:
            return
        event = close_record(
            held.record,
            Units(),
            REFUNDED,
            ended_ms=self._now_ms(),
            prices=self._prices,
            reason=reason,
            requests=0,
        )
        await self._close(held, [event], [0] * len(held.meters))

    async def peek(self, tenant: str, meters: Sequence[Meter]) -> Sequence[Reading]:
        """Reads the counters of a tenant's limits, running work included; takes nothing.

        Raises:
            Unavailable: The store or the ledger is away.
        """
        return await self._books.peek(tenant, meters)

    async def expire(self) -> int:
        """Closes reservations whose lease has passed, charged as reserved, estimated.

        Returns:
            How many were closed.
        """
        return await self.sweeper.sweep()

    async def drain(self) -> None:
        """Waits until what is being closed is on disk; called at shutdown."""
        while self._closing:
            await asyncio.wait(tuple(self._closing.values()))

    async def _allowed(self, principal: Principal, capability: str, model: str) -> Sequence[Meter]:
        """The meters to reserve on, once nothing but a limit can refuse any more."""
        tenant = await self._directory.active_tenant(principal.tenant)
        principal.demand(capability)
        if self._ledger.failing:
            raise Unavailable("Usage can't be recorded now.", retry_after=timedelta(seconds=2))
        return self._policy.meters(tenant, principal, capability, model)

    async def _close(
        self, held: Held, events: Sequence[UsageEvent], amounts: Sequence[int]
    ) -> None:
        """Closes a reservation, whether or not its caller is cancelled meanwhile."""
        reservation_id = held.record.id
        work = self._books.close(held, events, amounts)
        if self._books.shared is None:
            # A store of this process answers at once, so that the events are queued before
            # anything is waited for: who is cancelled then only stops waiting for the disk.
            await work
            return
        task = asyncio.create_task(work)
        self._closing[reservation_id] = task
        task.add_done_callback(lambda _: self._closing.pop(reservation_id, None))
        await asyncio.shield(task)

    async def _take(self, reservation_id: str, tenant: str) -> Held | None:
        """Takes a reservation to close it; ``None`` if it is closed already.

        Raises:
            NotFound: There never was one.
        """
        held = self._books.open.pop(reservation_id, None)
        if held is not None:
            return held
        closing = self._closing.get(reservation_id)
        if closing is not None:
            await asyncio.shield(closing)
            return None
        return await self._books.elsewhere(reservation_id, tenant, closed=True)

    def price(self, model: str, usage: Usage) -> int:
        """The most that `usage` of a model would cost now, in billionths of the currency."""
        return self._prices.at(self._now_ms()).bound(model, units_of(usage))

    def _bound(self, meters: Sequence[Meter], model: str, estimate: Usage) -> list[int]:
        return reserve_amounts(meters, estimate, lambda: self.price(model, estimate))

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
