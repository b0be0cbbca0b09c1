"""The open reservations of this process, and how one is closed: in the store, then on disk.

`admission.py` opens and closes them, `sweeper.py` ends those whose time has passed. A shared
store decides which of several processes closes a reservation, and keeps how it ended until
the event of it is surely on that process's disk.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import structlog

from atrium_common.errors import NotFound, Unavailable
from atrium_gateway.quota.limits import LimitState, Meter
from atrium_gateway.quota.store import GatewayQuotaStore, Hold, QuotaStore, Unseeded
from atrium_gateway.quota.verdict import Reading
from atrium_gateway.usage.port import Ledger
from atrium_gateway.usage.records import OpenRecord, Record, UsageEvent, closing_record, events_of

if TYPE_CHECKING:
    from atrium_gateway.late_limits import LateLimits

T = TypeVar("T")
_log = structlog.get_logger(__name__)

_SEEDINGS: Final = 3
"""Times that counters are seeded for one request: a store may be lost in between."""
REBUILD_SECONDS: Final = 1.0
"""After a loss, time for every process to tell the store what it holds open."""


class Held(msgspec.Struct):
    """A reservation that is not closed yet; its note in a shared store is this.

    Attributes:
        record: What was granted.
        meters: Limits that it was granted under.
        amounts: What it holds of each, internal counts.
        lease: Seconds.
        expires: When the lease passes, on this process's clock, Unix seconds.
    """

    record: OpenRecord
    meters: tuple[Meter, ...]
    amounts: Sequence[int]
    lease: float
    expires: float = 0.0


_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE_HELD: Final = msgspec.msgpack.Decoder(Held).decode
_DECODE_RECORD: Final[Callable[[bytes], Record]] = msgspec.msgpack.Decoder(Record).decode


class Books:
    """Keeps store and ledger in step.

    Args:
        store: Counts.
        shared: The same, where other processes count in it, too.
        ledger: Records.
        clock: Returns Unix seconds.
    """

    def __init__(
        self,
        *,
        store: QuotaStore,
        shared: GatewayQuotaStore | None = None,
        ledger: Ledger,
        clock: Callable[[], float],
    ) -> None:
        self.store = store
        self.shared = shared
        self.ledger = ledger
        self.open: dict[str, Held] = {}
        self.late: LateLimits | None = None
        self._clock = clock
        self._seeding: dict[tuple[str, ...], asyncio.Task[None]] = {}
        self._rebuilt: int | None = None
        self._generation: int | None = None

    def hold(self, held: Held, *, paid: bool = False) -> Hold:
        """What the store is asked to hold; a shared one keeps all of it for other processes."""
        record = held.record
        note = b"" if self.shared is None else _ENCODE(held)
        lease = timedelta(seconds=held.lease)
        return Hold(record.tenant, record.id, held.meters, held.amounts, lease, note, paid)

    async def reserve(self, held: Held, *, paid: bool) -> tuple[LimitState, ...]:
        """Reserves, once the counters that need it know what the ledger knows.

        Args:
            held: What.
            paid: Whether an outside provider charges for the work.

        Raises:
            QuotaExceeded: A limit refuses.
            Unavailable: Store or ledger are away.
        """
        hold = self.hold(held, paid=paid)
        if self.late is not None and hold.tenant in self.late.due:
            await self.late.count(hold.tenant)
        return await self._seeded(hold.tenant, lambda: self.store.reserve(hold))

    async def peek(self, tenant: str, meters: Sequence[Meter]) -> Sequence[Reading]:
        """Reads the counters of a tenant's limits, running work included; takes nothing.

        Raises:
            Unavailable: Store or ledger are away.
        """
        if self.late is not None and tenant in self.late.due:
            await self.late.count(tenant)
        return await self._seeded(tenant, lambda: self.store.peek(tenant, meters))

    async def _seeded(self, tenant: str, call: Callable[[], Awaitable[T]]) -> T:
        for _ in range(_SEEDINGS):
            try:
                return await call()
            except Unseeded as err:
                await self.seed(tenant, err.meters)
        raise Unavailable("Limits can't be counted now.", retry_after=timedelta(seconds=1))

    def read(self, note: bytes) -> Held:
        """A reservation from its note; its lease begins anew on this clock."""
        held = _DECODE_HELD(note)
        held.expires = self._clock() + held.lease
        return held

    async def close(self, held: Held, events: Sequence[UsageEvent], amounts: Sequence[int]) -> None:
        """Closes a reservation with its events, unless another process did.

        Must not be cancelled: its caller runs it apart.

        Raises:
            Unavailable: The disk refuses; the events are kept and tried again.
        """
        tenant, reservation_id = held.record.tenant, held.record.id
        note = b"" if self.shared is None else _ENCODE(closing_record(events))
        settled = await self.store.settle(tenant, reservation_id, amounts, note=note)
        if not settled and await self._closed_elsewhere(held, amounts, note):
            self.ledger.forget(reservation_id)
            return
        await self.write(events)

    async def write(self, events: Sequence[UsageEvent]) -> None:
        """Has the events of a closed reservation on disk, and the shared store told of it then.

        Raises:
            Unavailable: The disk refuses; the events are kept and tried again.
        """
        await self.ledger.close(events)
        if self.shared is not None:
            self.shared.written(events[0].tenant, events[0].id)

    async def closed(self, note: bytes) -> None:
        """Sees to it that the events of a reservation that was closed elsewhere are on disk.

        Its process may have ended before they were on its own; events of one id count once.
        """
        if note:
            await self.write(events_of(_DECODE_RECORD(note)))

    async def claim(self, events: Sequence[UsageEvent]) -> bool:
        """Ends a reservation whose lease has passed, with its events.

        Returns:
            Whether it was open still, and not renewed; else nothing changed.

        Raises:
            Unavailable: The store is away, or the disk refuses as in `write`.
        """
        note = b"" if self.shared is None else _ENCODE(closing_record(events))
        if await self.store.claim(events[0].tenant, events[0].id, note=note) is None:
            return False
        self.open.pop(events[0].id, None)
        await self.write(events)
        return True

    async def renew(self, held: Held, grown: Held | None) -> None:
        """Prolongs a reservation in the store.

        While a shared store is away, one of this process's own is prolonged here, and there
        as soon as it is back.

        Args:
            held: The reservation.
            grown: The same as it shall be; ``None`` if it does not grow.

        Raises:
            QuotaExceeded: The growth does not fit.
            NotFound: It is closed, or its lease has passed.
            Unavailable: The store is away, and another process's or to grow.
        """
        hold, grow = self.hold(grown or held), grown is not None
        known = held.record.id in self.open
        try:
            await self._seeded(hold.tenant, lambda: self.store.renew(hold, grow=grow))
        except NotFound:
            shared = self.shared
            if shared is None or not known or await shared.find(hold.tenant, hold.id) is not None:
                raise
            await shared.restore(self.hold(held))
            await self._seeded(hold.tenant, lambda: shared.renew(hold, grow=grow))
        except Unavailable:
            if self.shared is None or not known:
                raise
            self.shared.keep(self.hold(held))
            if grow:
                held.expires = self._clock() + held.lease
                raise
        held.expires = self._clock() + held.lease
        if grown is not None:  # it may have been attached to limits meanwhile
            grown.amounts = (*grown.amounts, *held.amounts[len(grown.amounts) :])

    async def seed(self, tenant: str, meters: Sequence[Meter]) -> None:
        """Starts counters with what the ledger knows; after a loss, when all is restored."""
        key = tuple(meter.key for meter in meters)
        task = self._seeding.get(key)
        if task is None:  # of many requests that meet these counters, one seeds them
            task = self._seeding[key] = asyncio.ensure_future(self._seed(tenant, meters))
            task.add_done_callback(lambda _: self._seeding.pop(key))
        await asyncio.shield(task)

    async def _seed(self, tenant: str, meters: Sequence[Meter]) -> None:
        generation = await self.notice()
        if generation != self._rebuilt:
            rest = generation / 1000 + REBUILD_SECONDS - self._clock()
            if self.shared is not None and 0 < rest <= REBUILD_SECONDS:
                await asyncio.sleep(rest)
            self._rebuilt = generation
        for meter in meters:
            await self.store.seed(tenant, meter, partial(self.ledger.consumed, tenant, meter))

    async def notice(self) -> int:
        """Finds out whether the store lost its data, and restores what is open here.

        Returns:
            When the store began to count, Unix milliseconds.
        """
        if self.shared is None:
            return 0
        generation = await self.shared.generation()
        if generation != self._generation:
            if self._generation is not None:
                _log.warning("quota_store_lost_its_data", open=len(self.open))
            await self._restore_open(self.shared)
            self._generation = generation
        return generation

    async def _restore_open(self, shared: GatewayQuotaStore) -> None:
        """Restores what is open here, but not what another process has closed since."""
        known: Collection[str] = ()
        try:
            known = await self.ledger.closed(tuple(self.open))
        except Unavailable as err:  # then some may count twice: less is given, never more
            _log.warning("closed_elsewhere_unknown", reason=err.reason)
        for held in tuple(self.open.values()):
            if held.record.id not in self.open:
                continue  # closed while others were restored
            if held.record.id in known:
                del self.open[held.record.id]
                self.ledger.forget(held.record.id)
            else:
                await shared.restore(self.hold(held))

    async def _closed_elsewhere(self, held: Held, amounts: Sequence[int], note: bytes) -> bool:
        """Whether another process closed it; what the store lost is counted again."""
        if self.shared is None:
            return False
        tenant, reservation_id = held.record.tenant, held.record.id
        try:
            found = await self.shared.find(tenant, reservation_id)
            if found is not None:
                await self.closed(found.note)
                return True
            await self.shared.restore(self.hold(held))
            await self.shared.settle(tenant, reservation_id, amounts, note=note)
        except Unavailable as err:
            _log.warning("quota_not_counted", id=reservation_id, reason=err.reason)
        return False

    async def elsewhere(
        self, reservation_id: str, tenant: str, *, closed: bool = False
    ) -> Held | None:
        """A reservation that another process made; ``None`` if it is closed.

        Args:
            reservation_id: The reservation.
            tenant: Whose it is; ``""`` where that is not known.
            closed: It must have been one: makes sure that its end is on disk.

        Raises:
            NotFound: `closed`, and there never was one.
            Unavailable: The store is away, or was just now: who made it may not have told.
        """
        shared = self.shared
        if tenant and shared is not None:
            found = await shared.find(tenant, reservation_id)
            if found is not None and found.left is not None:
                return self.read(found.note)
            if found is not None:
                await self.closed(found.note)
                return None
        if closed:
            await self.ledger.synced()
            if await self.ledger.closed((reservation_id,)):
                return None
        if tenant and shared is not None and shared.returning:
            raise Unavailable(
                "The gateway that admitted this may not have told the quota store of it yet.",
                reason="RESERVATION_NOT_TOLD",
                retry_after=timedelta(seconds=1),
            )
        if closed:
            raise NotFound("There is no such reservation.")
        return None
