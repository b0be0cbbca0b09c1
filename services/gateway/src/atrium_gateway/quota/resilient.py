"""The shared quota store as admission uses it: what becomes of a call while it is away.

Rates (minute, hour, concurrency) fall back to this process's own count, where the tenant's
policy allows that; budgets refuse. What the shared store could not be told, it is told
when it is back. See docs/adr/0012.
"""

import time
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, TypeVar

import msgspec
import structlog

from atrium_common.errors import Unavailable
from atrium_gateway.quota.limits import LimitState, Meter, Unit, Window
from atrium_gateway.quota.store import Found, QuotaStore

T = TypeVar("T")
_log = structlog.get_logger(__name__)

_RATES: Final = frozenset({Window.MINUTE, Window.HOUR, Window.CONCURRENT})
_OWED_AT_MOST: Final = 100_000
_STEADY_SECONDS: Final = 60.0
"""So long after the last failure, the own count is forgotten."""


class _Here(msgspec.Struct):
    """A reservation that is counted in this process alone."""

    store: QuotaStore
    meters: Sequence[Meter]
    amounts: Sequence[int]


class ResilientQuotaStore:
    """A shared store, and a count of our own for when it is away.

    Args:
        shared: The store of all processes.
        make_local: Makes an empty store of this process.
        falls_back: Whether a tenant's rates may be counted here alone.
    """

    def __init__(
        self,
        shared: QuotaStore,
        *,
        make_local: Callable[[], QuotaStore],
        falls_back: Callable[[str], bool],
    ) -> None:
        self._shared = shared
        self._make_local = make_local
        self._falls_back = falls_back
        self._local: QuotaStore | None = None
        self._here: dict[str, _Here] = {}
        self._owed: dict[str, Callable[[], Awaitable[object]]] = {}
        self._generation = 0
        self._failed = float("-inf")

    @property
    def shared(self) -> bool:
        return self._shared.shared

    @property
    def owed(self) -> int:
        """Calls that the shared store still has to be told of."""
        return len(self._owed)

    async def tend(self) -> None:
        """Tells the shared store what is owed to it; stops where it is away still."""
        for reservation_id, call in tuple(self._owed.items()):
            try:
                await call()
            except Unavailable:
                return
            if self._owed.get(reservation_id) is call:
                del self._owed[reservation_id]

    async def generation(self) -> int:
        try:
            self._generation = await self._shared.generation()
        except Unavailable:
            _log.warning("quota_store_away")
        return self._generation

    async def tenants(self) -> Sequence[str]:
        return await self._shared.tenants()

    async def seed(self, tenant: str, meter: Meter, used: int) -> None:
        try:
            await self._shared.seed(tenant, meter, used)
        except Unavailable:
            if self._local is None:
                raise
            await self._local.seed(tenant, meter, used)

    async def reserve(
        self,
        tenant: str,
        reservation_id: str,
        meters: Sequence[Meter],
        amounts: Sequence[int],
        *,
        lease: timedelta,
        note: bytes = b"",
    ) -> tuple[LimitState, ...]:
        try:
            states = await self._shared.reserve(
                tenant, reservation_id, meters, amounts, lease=lease, note=note
            )
        except CancelledError:
            self._owe(reservation_id, lambda: self._shared.void(tenant, reservation_id))
            raise
        except Unavailable:
            # Perhaps it has reserved, and only its answer was lost.
            self._owe(reservation_id, lambda: self._shared.void(tenant, reservation_id))
            self._failed = time.monotonic()
            if meters and not (all(map(_is_rate, meters)) and self._falls_back(tenant)):
                raise
        else:
            if self._local is not None and time.monotonic() - self._failed > _STEADY_SECONDS:
                self._local = None
            return states
        if self._local is None:
            self._local = self._make_local()
            _log.warning("quota_counted_locally", tenant=tenant)
        local = self._local
        states = await local.reserve(tenant, reservation_id, meters, amounts, lease=lease)
        self._here[reservation_id] = _Here(local, meters, amounts)
        return states

    async def renew(
        self,
        tenant: str,
        reservation_id: str,
        meters: Sequence[Meter],
        amounts: Sequence[int] | None,
        *,
        lease: timedelta,
        note: bytes = b"",
    ) -> None:
        here = self._here.get(reservation_id)
        store = self._shared if here is None else here.store
        await store.renew(tenant, reservation_id, meters, amounts, lease=lease, note=note)
        if here is not None and amounts is not None:
            here.amounts = [max(pair) for pair in zip(here.amounts, amounts, strict=True)]

    async def restore(
        self,
        tenant: str,
        reservation_id: str,
        meters: Sequence[Meter],
        amounts: Sequence[int],
        *,
        lease: timedelta,
        note: bytes = b"",
    ) -> None:
        if reservation_id not in self._here:
            await self._shared.restore(
                tenant, reservation_id, meters, amounts, lease=lease, note=note
            )

    async def settle(
        self, tenant: str, reservation_id: str, amounts: Sequence[int], *, note: bytes = b""
    ) -> bool:
        here = self._here.pop(reservation_id, None)
        if here is not None:
            await here.store.settle(tenant, reservation_id, amounts)
            self._book(tenant, reservation_id, here.meters, amounts)
            return True

        async def settle() -> bool:
            return await self._shared.settle(tenant, reservation_id, amounts, note=note)

        try:
            return await settle()
        except Unavailable:
            self._owe(reservation_id, settle)
            return True

    async def book(
        self, tenant: str, reservation_id: str, meters: Sequence[Meter], amounts: Sequence[int]
    ) -> None:
        self._book(tenant, reservation_id, meters, amounts)

    async def void(self, tenant: str, reservation_id: str) -> None:
        self._owe(reservation_id, lambda: self._shared.void(tenant, reservation_id))

    async def find(self, tenant: str, reservation_id: str) -> Found | None:
        here = self._here.get(reservation_id)
        store = self._shared if here is None else here.store
        return await store.find(tenant, reservation_id)

    async def claim(self, tenant: str, reservation_id: str) -> bytes | None:
        here = self._here.get(reservation_id)
        if here is None:
            return await self._shared.claim(tenant, reservation_id)
        note = await here.store.claim(tenant, reservation_id)
        if note is not None:
            del self._here[reservation_id]
            self._book(tenant, reservation_id, here.meters, here.amounts)
        return note

    async def lapsed(self, tenant: str) -> Sequence[str]:
        return await self._shared.lapsed(tenant)

    def _book(
        self, tenant: str, reservation_id: str, meters: Sequence[Meter], amounts: Sequence[int]
    ) -> None:
        """Owes the shared store what was consumed on our own count."""

        self._owe(
            reservation_id, lambda: self._shared.book(tenant, reservation_id, meters, amounts)
        )

    def _owe(self, reservation_id: str, call: Callable[[], Awaitable[object]]) -> None:
        if len(self._owed) >= _OWED_AT_MOST:
            dropped = next(iter(self._owed))
            del self._owed[dropped]
            _log.error("quota_store_never_told", id=dropped)
        self._owed[reservation_id] = call


def _is_rate(meter: Meter) -> bool:
    return meter.window in _RATES and meter.unit is not Unit.COST
