"""Counts running work in limits that were set while it runs; `core.py` runs it.

A reservation takes of the limits that hold when it is made. When a tenant's limits have changed
(its own, a plan's, its time zone), its next request waits until what runs here is counted in the
new ones as well, so that they begin with all of it; other gateways find out within a second.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import structlog

from atrium_common.domain import Usage
from atrium_common.errors import Unavailable
from atrium_gateway.books import Books, Held
from atrium_gateway.quota.counters import window_bounds
from atrium_gateway.quota.limits import LEDGERED, Meter, Window
from atrium_gateway.quota.measure import reserve_amounts
from atrium_gateway.quota.policy import LimitPolicy
from atrium_gateway.quota.turns import in_turn
from atrium_gateway.tenants.directory import Directory
from atrium_gateway.tenants.domain import Tenant
from atrium_gateway.usage.price import PriceSource
from atrium_gateway.usage.records import OpenRecord

_log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 0.25
_AGAIN_SECONDS: Final = 0.5
"""So long after the store was away, requests do not try again."""


class LateLimits:
    """Attaches open reservations of this process to limits that bind them by now.

    A minute's limit begins empty: what runs was sent before, and a minute is soon over.
    Windows count what was admitted in them, so what runs since before stays out.

    Args:
        books: The open reservations.
        directory: Knows tenants.
        policy: Picks the limits that apply, and notices changes.
        prices: Tell the prices in force.
        clock: Returns Unix seconds.
    """

    def __init__(
        self,
        books: Books,
        *,
        directory: Directory,
        policy: LimitPolicy,
        prices: PriceSource,
        clock: Callable[[], float],
    ) -> None:
        self._books = books
        self._directory = directory
        self._policy = policy
        self._prices = prices
        self._clock = clock
        self._counting: dict[str, asyncio.Task[None]] = {}
        self._looked = (-1, -1)
        self._again = float("-inf")
        self._unsure: set[str] = set()
        self.due = policy.changed
        """Tenants whose running work must be seen to, by id."""

    async def count(self, tenant_id: str) -> None:
        """Counts what runs of a tenant that is due; of many that ask, one does it.

        While the store is away it stays due.
        """
        tenant = self.due.get(tenant_id)
        if tenant is None or time.monotonic() < self._again:
            return
        if not any(held.record.tenant == tenant_id for held in self._books.open.values()):
            del self.due[tenant_id]
            return
        await self._joined(tenant)

    async def look(self) -> None:
        """Finds tenants that nobody asks for here, but which have work that runs here.

        Each change is looked at twice: a request may have been on its way to the store.

        Raises:
            Unavailable: The database is away; the next look does it.
        """
        running = {held.record.tenant for held in self._books.open.values()}
        if not running:
            return
        await self._directory.check()
        epoch = self._directory.epoch
        if self._looked == (epoch, epoch):
            return
        for tenant_id in running:
            tenant = await self._directory.tenant(tenant_id)
            if tenant is not None:
                self._policy.notice(tenant)
                await self._joined(tenant)
        self._looked = (epoch, self._looked[0])

    async def _joined(self, tenant: Tenant) -> None:
        task = self._counting.get(tenant.id)
        if task is None:
            task = self._counting[tenant.id] = asyncio.ensure_future(self._count(tenant))
            task.add_done_callback(lambda _: self._counting.pop(tenant.id))
        await asyncio.shield(task)

    async def _count(self, tenant: Tenant) -> None:
        self._unsure &= self._books.open.keys()
        late = [
            (held, meters)
            for held in self._books.open.values()
            if held.record.tenant == tenant.id
            and ((meters := self._late(tenant, held)) or held.record.id in self._unsure)
        ]
        try:
            await in_turn(self._attach(*each) for each in late)
        except Unavailable as err:
            self._again = time.monotonic() + _AGAIN_SECONDS
            _log.warning("running_work_not_counted", tenant=tenant.id, reason=err.reason)
            return
        if self.due.get(tenant.id) is tenant:
            del self.due[tenant.id]

    def _late(self, tenant: Tenant, held: Held) -> Sequence[Meter]:
        """The limits that a reservation does not count in, and would if it were made anew."""
        record = held.record
        known = {meter.key for meter in held.meters}
        return [
            meter
            for meter in self._policy.meters(tenant, record, record.capability, record.model)
            if meter.key not in known and self._counts(meter, record)
        ]

    def _counts(self, meter: Meter, record: OpenRecord) -> bool:
        if meter.window not in LEDGERED:
            return meter.window is Window.CONCURRENT
        start, _ = window_bounds(meter.window, int(self._clock() * 1000), meter.time_zone)
        return record.started_ms >= start

    async def _attach(self, held: Held, meters: Sequence[Meter]) -> None:
        """Counts a reservation in further limits, unless it is closed by now.

        From the call on it is settled in them, too: a store that does not answer may have done
        it. One that has not done it leaves such amounts out, until it is asked again.
        """
        record = held.record
        book = self._prices.at(record.started_ms)
        amounts = reserve_amounts(
            meters, _most(record), lambda: book.bound(record.model, record.reserved)
        )
        held.meters, held.amounts = (*held.meters, *meters), (*held.amounts, *amounts)
        self._unsure.add(record.id)
        await self._books.store.attach(self._books.hold(held))
        self._unsure.discard(record.id)


def _most(record: OpenRecord) -> Usage:
    """The usage that a reservation was made for."""
    units = record.reserved
    return Usage(
        input_tokens=units.input_tokens,
        output_tokens=units.output_tokens,
        characters=units.characters,
        input_audio=timedelta(milliseconds=units.input_audio_ms),
        output_audio=timedelta(milliseconds=units.output_audio_ms),
        images=units.images,
        millimegapixel_steps=units.millimegapixel_steps,
        pages=units.pages,
    )
