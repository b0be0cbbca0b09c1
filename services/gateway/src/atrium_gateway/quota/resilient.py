"""The shared quota store as admission uses it: what becomes of a call while it is away.

Rates (minute, hour, concurrency) fall back to this process's own count, where the tenant's
policy allows that; budgets and work that a provider charges for refuse. What the shared store
could not be told, it is told when it is back. See docs/adr/0012.
"""

import time
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import msgspec
import structlog

from atrium_common.errors import Unavailable
from atrium_gateway.quota.limits import LimitState, Meter, Unit, Window
from atrium_gateway.quota.store import Consumed, Found, Hold, QuotaStore, RemoteQuotaStore
from atrium_gateway.quota.turns import in_turn
from atrium_gateway.quota.verdict import Reading

T = TypeVar("T")
_log = structlog.get_logger(__name__)

_RATES: Final = frozenset({Window.MINUTE, Window.HOUR, Window.CONCURRENT})
_OWED_AT_MOST: Final = 100_000
_STEADY_SECONDS: Final = 60.0
"""So long after the last failure, the own count is forgotten."""
_RETURN_SECONDS: Final = 10.0
"""After an outage, time for every gateway to tell what it owes."""


class _Here(msgspec.Struct):
    """A reservation that is counted in this process alone.

    Attributes:
        store: Counts it.
        hold: What it holds.
        stays: The shared store refuses it: its answer to the first try was given up.
    """

    store: QuotaStore
    hold: Hold
    stays: bool = False


class ResilientQuotaStore:
    """A shared store, and a count of our own for when it is away; see `GatewayQuotaStore`.

    Args:
        shared: The store of all processes.
        make_local: Makes an empty store of this process.
        falls_back: Whether a tenant's rates may be counted here alone.
    """

    def __init__(
        self,
        shared: RemoteQuotaStore,
        *,
        make_local: Callable[[], QuotaStore],
        falls_back: Callable[[str], bool],
    ) -> None:
        self._shared = shared
        self._make_local = make_local
        self._falls_back = falls_back
        self._local: QuotaStore | None = None
        self._here: dict[str, _Here] = {}
        self._kept: dict[str, Hold] = {}
        self._owed: dict[str, Callable[[], Awaitable[object]]] = {}
        self._written: dict[str, str] = {}
        self._generation = 0
        self._failed = float("-inf")

    @property
    def owed(self) -> int:
        """Calls that the shared store still has to be told of."""
        return len(self._owed) + len(self._kept) + len(self._here)

    @property
    def returning(self) -> bool:
        return time.monotonic() - self._failed < _RETURN_SECONDS

    def keep(self, hold: Hold) -> None:
        self._kept[hold.id] = hold

    def written(self, tenant: str, reservation_id: str) -> None:
        if len(self._written) < _OWED_AT_MOST:  # of the rest another gateway makes sure
            self._written[reservation_id] = tenant

    async def tend(self) -> None:
        """Tells the shared store what is owed to it; stops where it is away still."""
        try:
            await in_turn(self._restore_kept(hold) for hold in tuple(self._kept.values()))
            here = [each for each in self._here.values() if not each.stays]
            await in_turn(self._hand_over(each) for each in here)
            await in_turn(self._pay(*each) for each in tuple(self._owed.items()))
            await self._confirm()
        except Unavailable:
            self._missed()

    async def generation(self) -> int:
        try:
            self._generation = await self._shared.generation()
        except Unavailable:
            self._missed()
            _log.warning("quota_store_away")
        return self._generation

    async def tenants(self) -> Sequence[str]:
        return await self._answered(self._shared.tenants())

    async def lapsed(self, tenant: str) -> Sequence[str]:
        return await self._answered(self._shared.lapsed(tenant))

    async def seed(self, tenant: str, meter: Meter, consumed: Consumed) -> None:
        try:
            await self._answered(self._shared.seed(tenant, meter, consumed))
        except Unavailable:
            if self._local is None:
                raise
            await self._local.seed(tenant, meter, consumed)

    async def peek(self, tenant: str, meters: Sequence[Meter]) -> Sequence[Reading]:
        return await self._answered(self._shared.peek(tenant, meters))

    async def reserve(self, hold: Hold) -> tuple[LimitState, ...]:
        try:
            states = await self._shared.reserve(hold)
        except CancelledError:
            self._owe_void(hold)
            raise
        except Unavailable:
            # Perhaps it has reserved, and only its answer was lost.
            self._owe_void(hold)
            self._missed()
            if not self._may_count(hold):
                raise
        else:
            if self._local is not None and time.monotonic() - self._failed > _STEADY_SECONDS:
                self._local = None
            return states
        if self._local is None:
            self._local = self._make_local()
            _log.warning("quota_counted_locally", tenant=hold.tenant)
        local = self._local
        states = await local.reserve(hold)
        self._here[hold.id] = _Here(local, hold)
        return states

    async def renew(self, hold: Hold, *, grow: bool) -> None:
        here = self._here.get(hold.id)
        if here is None:
            await self._answered(self._shared.renew(hold, grow=grow))
            self._kept.pop(hold.id, None)
            return
        await here.store.renew(hold, grow=grow)
        if grow:
            most = [max(pair) for pair in zip(here.hold.amounts, hold.amounts, strict=True)]
            here.hold = msgspec.structs.replace(hold, amounts=most)

    async def attach(self, hold: Hold) -> bool:
        here = self._here.get(hold.id)
        if here is None:
            return await self._answered(self._shared.attach(hold))
        attached = await here.store.attach(hold)
        if attached:
            here.hold = msgspec.structs.replace(
                here.hold, meters=hold.meters, amounts=hold.amounts, note=hold.note
            )
        return attached

    async def restore(self, hold: Hold) -> bool:
        if hold.id in self._here:
            return True
        return await self._answered(self._shared.restore(hold))

    async def settle(
        self, tenant: str, reservation_id: str, amounts: Sequence[int], *, note: bytes = b""
    ) -> bool:
        here = self._here.pop(reservation_id, None)
        self._kept.pop(reservation_id, None)
        if here is not None:
            await here.store.settle(tenant, reservation_id, amounts)
            self._owe_booking(here.hold, amounts)
            return True

        async def settle() -> bool:
            return await self._shared.settle(tenant, reservation_id, amounts, note=note)

        try:
            return await self._answered(settle())
        except Unavailable:
            self._owe(reservation_id, settle)
            return True

    async def find(self, tenant: str, reservation_id: str) -> Found | None:
        here = self._here.get(reservation_id)
        if here is not None:
            return await here.store.find(tenant, reservation_id)
        return await self._answered(self._shared.find(tenant, reservation_id))

    async def claim(self, tenant: str, reservation_id: str, *, note: bytes = b"") -> bytes | None:
        here = self._here.get(reservation_id)
        if here is None:
            return await self._answered(self._shared.claim(tenant, reservation_id, note=note))
        claimed = await here.store.claim(tenant, reservation_id)
        if claimed is not None:
            del self._here[reservation_id]
            self._owe_booking(here.hold, here.hold.amounts)
        return claimed

    async def _answered(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except Unavailable:
            self._missed()
            raise

    def _missed(self) -> None:
        self._failed = time.monotonic()

    def _may_count(self, hold: Hold) -> bool:
        """Whether a reservation may be counted here alone."""
        if hold.paid:
            return False
        return not hold.meters or (
            all(map(_is_rate, hold.meters)) and self._falls_back(hold.tenant)
        )

    async def _confirm(self) -> None:
        """Confirms what is on disk, one call for each tenant."""
        by_tenant: dict[str, list[str]] = {}
        for reservation_id, tenant in self._written.items():
            by_tenant.setdefault(tenant, []).append(reservation_id)

        async def confirm(tenant: str, ids: Sequence[str]) -> None:
            await self._shared.confirm(tenant, ids)
            for reservation_id in ids:
                self._written.pop(reservation_id, None)

        await in_turn(confirm(*each) for each in by_tenant.items())

    async def _restore_kept(self, hold: Hold) -> None:
        """Repeats a renewal; a later one in the meantime is told in the next round."""
        await self._shared.restore(hold)
        if self._kept.get(hold.id) is hold:
            del self._kept[hold.id]

    async def _hand_over(self, here: _Here) -> None:
        """Has the shared store hold what was counted here, so that any gateway can close it.

        The own count keeps it for as long as that count is kept.
        """
        hold = here.hold
        here.stays = not await self._shared.restore(hold)
        if here.stays or self._here.get(hold.id) is not here or here.hold is not hold:
            return  # closed or grown in the meantime: its end is owed, or it is tried again
        del self._here[hold.id]
        self._owed.pop(hold.id, None)  # what was owed was to give back its first try

    async def _pay(self, reservation_id: str, call: Callable[[], Awaitable[object]]) -> None:
        await call()
        if self._owed.get(reservation_id) is call:
            del self._owed[reservation_id]

    def _owe_void(self, hold: Hold) -> None:
        self._owe(hold.id, lambda: self._shared.void(hold.tenant, hold.id))

    def _owe_booking(self, hold: Hold, amounts: Sequence[int]) -> None:
        """Owes the shared store what was consumed on our own count."""
        consumed = msgspec.structs.replace(hold, amounts=amounts)
        self._owe(hold.id, lambda: self._shared.book(consumed))

    def _owe(self, reservation_id: str, call: Callable[[], Awaitable[object]]) -> None:
        if len(self._owed) >= _OWED_AT_MOST:
            dropped = next(iter(self._owed))
            del self._owed[dropped]
            _log.error("quota_store_never_told", id=dropped)
        self._owed[reservation_id] = call


def _is_rate(meter: Meter) -> bool:
    return meter.window in _RATES and meter.unit is not Unit.COST
