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
from atrium_gateway.quota.limits import LimitState, Meter
from atrium_gateway.quota.measure import reserve_amounts, settle_amounts
from atrium_gateway.quota.policy import LimitPolicy
from atrium_gateway.quota.store import QuotaStore, Unseeded
from atrium_gateway.tenants.directory import Directory
from atrium_gateway.usage.billing import close_record, settle_record
from atrium_gateway.usage.port import Ledger
from atrium_gateway.usage.price import PriceSource
from atrium_gateway.usage.records import (
    EXPIRED,
    REFUNDED,
    OpenRecord,
    Outcome,
    Units,
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


class _Open:
    """A reservation that is not closed yet."""

    __slots__ = ("expires", "lease", "meters", "record")

    def __init__(
        self, record: OpenRecord, meters: Sequence[Meter], lease: timedelta, expires: float
    ) -> None:
        self.record = record
        self.meters = meters
        self.lease = lease
        self.expires = expires


class Admission:
    """Checks limits, holds leases and writes the ledger.

    Args:
        directory: Knows tenants and their limits.
        policy: Picks the limits that apply.
        store: Counts against them.
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
        ledger: Ledger,
        prices: PriceSource,
        lease: timedelta,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._directory = directory
        self._policy = policy
        self._store = store
        self._ledger = ledger
        self._prices = prices
        self._lease = lease
        self._clock = clock
        self._new_id = new_id
        self._open: dict[str, _Open] = {}
        self._seeding = asyncio.Lock()

    @property
    def open_reservations(self) -> int:
        """Reservations that are neither settled, refunded nor expired."""
        return len(self._open)

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
            Unavailable: The ledger or the database can't be written or read now.
        """
        principal.demand_model(model)
        meters = await self._allowed(principal, capability, model)
        amounts = self._bound(meters, model, estimate)
        reservation_id = self._new_id()
        held = lease or self._lease
        limits = await self._reserve(principal.tenant, reservation_id, meters, amounts, held)
        now = self._clock()
        record = OpenRecord(
            reservation_id,
            principal.tenant,
            principal.subject,
            capability,
            model,
            method,
            request_id,
            int(now * 1000),
            units_of(estimate),
            principal.key_id,
        )
        self._open[reservation_id] = _Open(record, meters, held, now + held.total_seconds())
        self._ledger.open(record)
        return Reservation(reservation_id, principal, held, limits)

    async def renew(self, reservation_id: str, estimate: Usage | None = None) -> timedelta:
        """Prolongs a lease, and grows the reservation to a new total if given.

        Returns:
            The time until the lease passes again.

        Raises:
            QuotaExceeded: The growth does not fit; the reservation is as it was.
            NotFound: The reservation is closed.
        """
        entry = self._open.get(reservation_id)
        if entry is None:
            raise NotFound("The reservation is closed or its lease has passed.")
        amounts = (
            None if estimate is None else self._bound(entry.meters, entry.record.model, estimate)
        )
        await self._store.renew(
            entry.record.tenant, reservation_id, entry.meters, amounts, lease=entry.lease
        )
        entry.expires = self._clock() + entry.lease.total_seconds()
        if estimate is not None:
            entry.record = msgspec.structs.replace(entry.record, reserved=units_of(estimate))
            self._ledger.open(entry.record)
        return entry.lease

    async def settle(
        self,
        reservation_id: str,
        usage: Usage,
        outcome: Outcome,
        by_model: Sequence[Usage] = (),
    ) -> None:
        """Replaces the reservation by what was consumed; returns when that is on disk.

        What exceeds the reservation is recorded and counted truthfully. Closing again
        changes nothing.

        Args:
            reservation_id: The reservation.
            usage: What was consumed in total; limits count it.
            outcome: How the work ended.
            by_model: The same by model, if several did it: each gets an event of its own,
                at its own price. Where it does not add up to `usage`, it is ignored.

        Raises:
            NotFound: There never was such a reservation.
            Unavailable: The disk can't be written; the record is kept and tried again.
        """
        entry = self._open.pop(reservation_id, None)
        if entry is None:
            await self._closed_before(reservation_id)
            return
        parts = shares(usage, by_model, model=entry.record.model)
        if parts is None:
            _log.error("usage_by_model_ignored", request_id=entry.record.request_id)
            parts = [usage]
        events = settle_record(
            entry.record, parts, outcome, ended_ms=self._now_ms(), prices=self._prices
        )
        # The record is queued before anything can be awaited: from here on a cancelled
        # caller can't lose it.
        written = self._ledger.close(events)
        consumed = settle_amounts(
            entry.meters, usage, lambda: sum(event.cost_nano for event in events)
        )
        await self._store.settle(entry.record.tenant, reservation_id, consumed)
        await written

    async def refund(self, reservation_id: str, reason: str) -> None:
        """Gives the whole reservation back; recorded, charged nothing. Idempotent.

        Args:
            reservation_id: The reservation.
            reason: Why, as a reason of the error tree.

        Raises:
            NotFound: There never was such a reservation.
            Unavailable: The disk can't be written; the record is kept and tried again.
        """
        entry = self._open.pop(reservation_id, None)
        if entry is None:
            await self._closed_before(reservation_id)
            return
        event = close_record(
            entry.record,
            Units(),
            REFUNDED,
            ended_ms=self._now_ms(),
            prices=self._prices,
            reason=reason,
            requests=0,
        )
        written = self._ledger.close([event])
        await self._store.settle(entry.record.tenant, reservation_id, [0] * len(entry.meters))
        await written

    async def expire(self) -> int:
        """Closes reservations whose lease has passed, charged as reserved, estimated.

        Returns:
            How many were closed.
        """
        now = self._clock()
        late = [key for key, entry in self._open.items() if entry.expires <= now]
        for reservation_id in late:
            entry = self._open.pop(reservation_id)
            event = close_record(
                entry.record,
                entry.record.reserved,
                EXPIRED,
                ended_ms=self._now_ms(),
                prices=self._prices,
                estimated=True,
                reason="LEASE_EXPIRED",
            )
            written = self._ledger.close([event])
            await self._store.claim(entry.record.tenant, reservation_id)
            await written
            _log.warning(
                "reservation_expired", request_id=entry.record.request_id, id=reservation_id
            )
        return len(late)

    async def _allowed(self, principal: Principal, capability: str, model: str) -> Sequence[Meter]:
        """The meters to reserve on, once nothing but a limit can refuse any more."""
        tenant = await self._directory.active_tenant(principal.tenant)
        principal.demand(capability)
        if self._ledger.failing:
            raise Unavailable("Usage can't be recorded now.", retry_after=timedelta(seconds=2))
        return self._policy.meters(tenant, principal, capability, model)

    async def _reserve(
        self,
        tenant: str,
        reservation_id: str,
        meters: Sequence[Meter],
        amounts: Sequence[int],
        lease: timedelta,
    ) -> tuple[LimitState, ...]:
        """Reserves, once the counters that need it know what the ledger knows."""
        try:
            return await self._store.reserve(tenant, reservation_id, meters, amounts, lease=lease)
        except Unseeded as err:
            async with self._seeding:
                for meter in err.meters:
                    used = await self._ledger.consumed(tenant, meter)
                    await self._store.seed(tenant, meter, used)
        return await self._store.reserve(tenant, reservation_id, meters, amounts, lease=lease)

    def _bound(self, meters: Sequence[Meter], model: str, estimate: Usage) -> list[int]:
        return reserve_amounts(
            meters,
            estimate,
            lambda: self._prices.at(self._now_ms()).cost(model, units_of(estimate))[0],
        )

    async def _closed_before(self, reservation_id: str) -> None:
        await self._ledger.synced()
        if not await self._ledger.knows(reservation_id):
            raise NotFound("There is no such reservation.")

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
