"""The open reservations of this process, and how one is closed: in the store, then on disk.

`admission.py` opens and closes them, `sweeper.py` ends those whose time has passed. A shared
store decides which of several processes closes a reservation, and keeps how it ended until
the event of it is surely on that process's disk.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import msgspec
import structlog

from atrium_common.errors import NotFound, Unavailable
from atrium_gateway.quota.limits import Meter
from atrium_gateway.quota.store import QuotaStore
from atrium_gateway.usage.port import Ledger
from atrium_gateway.usage.records import OpenRecord, Record, UsageEvent, closing_record, events_of

_log = structlog.get_logger(__name__)

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
        ledger: Records.
        clock: Returns Unix seconds.
    """

    def __init__(self, *, store: QuotaStore, ledger: Ledger, clock: Callable[[], float]) -> None:
        self.store = store
        self.ledger = ledger
        self.open: dict[str, Held] = {}
        self._clock = clock
        self._seeding: dict[tuple[str, ...], asyncio.Task[None]] = {}
        self._rebuilt: int | None = None
        self._generation: int | None = None

    def note(self, held: Held) -> bytes:
        """What the store keeps of a reservation for other processes."""
        return _ENCODE(held) if self.store.shared else b""

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
        note = _ENCODE(closing_record(events)) if self.store.shared else b""
        settled = await self.store.settle(tenant, reservation_id, amounts, note=note)
        if not settled and await self._closed_elsewhere(held, amounts, note):
            self.ledger.forget(reservation_id)
            return
        await self.ledger.close(events)

    async def closed(self, note: bytes) -> None:
        """Sees to it that the events of a reservation that was closed elsewhere are on disk.

        Its process may have ended before they were on its own; events of one id count once.
        """
        if note:
            await self.ledger.close(events_of(_DECODE_RECORD(note)))

    async def renew(self, held: Held, amounts: Sequence[int] | None) -> None:
        """Prolongs a reservation in the store; `held` has what it grows to already.

        Raises:
            QuotaExceeded: The growth does not fit.
            NotFound: It is closed, or its lease has passed.
            Unavailable: The store is away.
        """
        note = b"" if amounts is None else self.note(held)
        tenant, reservation_id = held.record.tenant, held.record.id
        lease = timedelta(seconds=held.lease)
        try:
            await self.store.renew(
                tenant, reservation_id, held.meters, amounts, lease=lease, note=note
            )
        except NotFound:
            known = reservation_id in self.open
            if not known or await self.store.find(tenant, reservation_id) is not None:
                raise
            await self.restore(held)
            await self.store.renew(
                tenant, reservation_id, held.meters, amounts, lease=lease, note=note
            )

    async def restore(self, held: Held) -> None:
        """Tells a store that lost its data of a reservation that is open here."""
        await self.store.restore(
            held.record.tenant,
            held.record.id,
            held.meters,
            held.amounts,
            lease=timedelta(seconds=held.lease),
            note=self.note(held),
        )

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
            if self.store.shared and 0 < rest <= REBUILD_SECONDS:
                await asyncio.sleep(rest)
            self._rebuilt = generation
        for meter in meters:
            used = await self.ledger.consumed(tenant, meter)
            await self.store.seed(tenant, meter, used)

    async def notice(self) -> int:
        """Finds out whether the store lost its data, and restores what is open here.

        Returns:
            When the store began to count, Unix milliseconds.
        """
        generation = await self.store.generation()
        if generation != self._generation:
            if self._generation is not None:
                _log.warning("quota_store_lost_its_data", open=len(self.open))
            for held in tuple(self.open.values()):
                await self.restore(held)
            self._generation = generation
        return generation

    async def _closed_elsewhere(self, held: Held, amounts: Sequence[int], note: bytes) -> bool:
        """Whether another process closed it; what the store lost is counted again."""
        tenant, reservation_id = held.record.tenant, held.record.id
        try:
            if await self.store.find(tenant, reservation_id) is not None:
                return True
            await self.restore(held)
            await self.store.settle(tenant, reservation_id, amounts, note=note)
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
        """
        if tenant and self.store.shared:
            found = await self.store.find(tenant, reservation_id)
            if found is not None and found.left is not None:
                return self.read(found.note)
            if found is not None:
                await self.closed(found.note)
                return None
        if closed:
            await self.ledger.synced()
            if not await self.ledger.knows(reservation_id):
                raise NotFound("There is no such reservation.")
        return None
