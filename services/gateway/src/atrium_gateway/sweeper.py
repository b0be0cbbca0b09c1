"""Ends reservations whose lease has passed, whichever process made them; `core.py` runs it.

A gateway that died may have left thousands. Each round ends so many of them, several side by
side, that they are through within seconds and requests hardly notice.
"""

import random
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

import msgspec
import structlog

from atrium_common.errors import Unavailable
from atrium_gateway.books import Books, Held
from atrium_gateway.quota.store import SharedQuotaStore
from atrium_gateway.quota.turns import in_turn
from atrium_gateway.usage.billing import close_record
from atrium_gateway.usage.price import PriceSource
from atrium_gateway.usage.records import EXPIRED, ORPHANED, OpenRecord, UsageEvent

_log = structlog.get_logger(__name__)

_OTHERS_EVERY: Final = 2.0
"""Seconds between two looks at what other processes left."""
_RETURN_SECONDS: Final = 4.0
"""After the store was away, time for others to tell it what they renewed and settled."""
_AGAIN_SECONDS: Final = 0.05
_A_ROUND: Final = 1_000
"""Reservations of each kind that a round ends; the others wait for the next one."""


class Sweeper:
    """Charges what nobody settled as it was reserved, flagged estimated.

    Args:
        books: The open reservations, store and ledger.
        prices: Tells the prices in force.
        clock: Returns Unix seconds.
    """

    def __init__(self, books: Books, *, prices: PriceSource, clock: Callable[[], float]) -> None:
        self._books = books
        self._prices = prices
        self._clock = clock
        self._unsure: dict[str, OpenRecord] = {}
        self._next_look = float("-inf")
        self._claims_from = float("-inf")
        self._lapsed: dict[str, dict[str, float]] = {}
        """What had lapsed when its tenant was last looked at, and since when that is known."""
        self._unreadable: set[str] = set()

    @property
    def books(self) -> Books:
        """The open reservations that it ends."""
        return self._books

    def adopt(self, records: Iterable[OpenRecord]) -> None:
        """Takes over reservations that an earlier process left open, to ask what they became."""
        self._unsure.update({record.id: record for record in records})

    async def sweep(self) -> int:
        """Does one round.

        Returns:
            How many reservations it ended.

        Raises:
            Unavailable: Store or disk is away; the rest is done in a later round.
        """
        try:
            return await self._round()
        except Unavailable:
            self._claims_from = self._clock() + _RETURN_SECONDS
            raise

    async def _round(self) -> int:
        books = self._books
        if books.shared is not None:
            await books.shared.tend()
        await books.notice()
        if books.shared is not None:
            await self._adopt(books.shared)
        now = self._clock()
        late = [held for held in books.open.values() if held.expires <= now]
        ended = sum(await in_turn(self._expire(held) for held in late[:_A_ROUND]))
        if books.shared is not None and now >= self._next_look:
            self._next_look = now + _OTHERS_EVERY
            ended += await self._claim_others(books.shared, now)
        return ended

    async def _adopt(self, shared: SharedQuotaStore) -> None:
        async def resolve(record: OpenRecord) -> None:
            await self._resolve(shared, record)
            del self._unsure[record.id]

        await in_turn(resolve(record) for record in [*islice(self._unsure.values(), _A_ROUND)])

    async def _expire(self, held: Held) -> bool:
        books, record = self._books, held.record
        event = self._ended(record, EXPIRED, "LEASE_EXPIRED")
        if await books.claim([event]):
            _tell(event)
            return True
        found = await books.store.find(record.tenant, record.id)
        if found is not None and found.left is not None:  # another process renewed it
            held.expires = self._clock() + max(found.left.total_seconds(), _AGAIN_SECONDS)
            return False
        if books.open.pop(record.id, None) is None:
            return False  # settled in the meantime
        if found is not None:  # another process closed it
            await books.closed(found.note)
            books.ledger.forget(record.id)
            return False
        await self._write(event)
        return True

    async def _claim_others(self, store: SharedQuotaStore, now: float) -> int:
        """Ends what other processes left behind, open or closed without its events.

        Only what had lapsed at the look at its tenant before as well, and not just after the
        store was away: a process that lives tells the store first what it could not tell
        until then. Where tenants are many, each look is at some of them.
        """
        lapsed, self._lapsed = self._lapsed, {}
        if now < self._claims_from:
            return 0
        due: list[tuple[str, str]] = []
        for tenant in await store.tenants():
            before, seen = lapsed.pop(tenant, {}), dict[str, float]()
            for reservation_id in await store.lapsed(tenant):
                if reservation_id not in self._books.open:
                    seen[reservation_id] = before.get(reservation_id, now)
            if seen:
                lapsed[tenant] = seen
            due += [(tenant, key) for key, since in seen.items() if now - since >= _OTHERS_EVERY]
        if len(due) > _A_ROUND:
            self._next_look = now
            # Other gateways are at it, too: so that they end others.
            random.shuffle(due)
        ended = await in_turn(self._end_other(store, *each) for each in due[:_A_ROUND])
        self._lapsed = lapsed
        return sum(ended)

    async def _end_other(self, store: SharedQuotaStore, tenant: str, reservation_id: str) -> bool:
        try:
            return await self._end(store, tenant, reservation_id)
        except msgspec.DecodeError as err:
            # Written by another version; one such record must not hold up those of others.
            if reservation_id not in self._unreadable:
                self._unreadable.add(reservation_id)
                _log.error("reservation_unreadable", id=reservation_id, error=str(err))
            return False

    async def _end(self, store: SharedQuotaStore, tenant: str, reservation_id: str) -> bool:
        found = await store.find(tenant, reservation_id)
        if found is None or not found.note:
            await store.claim(tenant, reservation_id)  # the store forgets that it lapsed
            return False
        if found.left is None:  # whoever closed it may not have lived to write it
            await self._books.closed(found.note)
            _log.warning("reservation_written_for_another", id=reservation_id)
            return False
        event = self._ended(self._books.read(found.note).record, EXPIRED, "LEASE_EXPIRED")
        if not await self._books.claim([event]):
            return False
        _tell(event)
        return True

    async def _resolve(self, shared: SharedQuotaStore, record: OpenRecord) -> None:
        """Finds out what became of a reservation while its process was not there."""
        books = self._books
        found = await shared.find(record.tenant, record.id)
        if found is None:
            await self._write(self._ended(record, ORPHANED, "GATEWAY_RESTARTED"))
        elif found.left is not None:
            held = books.read(found.note)
            held.expires = self._clock() + found.left.total_seconds()
            books.open[record.id] = held
        elif found.note:
            await books.closed(found.note)
        else:  # given back, or counted by its process alone, which did not live to write it
            await self._write(self._ended(record, EXPIRED, "LEASE_EXPIRED"))

    async def _write(self, event: UsageEvent) -> None:
        await self._books.write([event])
        _tell(event)

    def _ended(self, record: OpenRecord, outcome: str, reason: str) -> UsageEvent:
        """The event of a reservation that nobody settled."""
        return close_record(
            record,
            record.reserved,
            outcome,
            ended_ms=int(self._clock() * 1000),
            prices=self._prices,
            estimated=True,
            reason=reason,
        )


def _tell(event: UsageEvent) -> None:
    _log.warning("reservation_ended", outcome=event.outcome, id=event.id, request=event.request_id)
