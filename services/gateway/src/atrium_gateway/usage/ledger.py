"""The ledger as admission sees it: open, close, and what was consumed so far.

Joins the spool (durable at once), the writer (into the database) and recovery (what a
crash left open). Built by `core.open_core`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_common.errors import Unavailable
from atrium_gateway.quota.limits import Meter, Unit
from atrium_gateway.quota.measure import NANO_PER_COUNT
from atrium_gateway.usage.billing import close_record
from atrium_gateway.usage.consumption import consumption_of, consumption_query
from atrium_gateway.usage.framing import frame
from atrium_gateway.usage.kept import kept_zone
from atrium_gateway.usage.price import PriceSource
from atrium_gateway.usage.records import (
    ORPHANED,
    ClosedElsewhere,
    OpenRecord,
    UsageEvent,
    closing_record,
)
from atrium_gateway.usage.recovery import scan
from atrium_gateway.usage.spool import Spool
from atrium_gateway.usage.tables import usage_events
from atrium_gateway.usage.writer import LedgerWriter

_log = structlog.get_logger(__name__)

_IDS_AT_ONCE = 5_000


class SpooledLedger:
    """Events first on disk, then in the database; nothing lost, nothing doubled.

    Args:
        engine: The database, upgraded.
        folder: Folder of the spool; one process owns it.
        segment_bytes: Size after which a new spool file begins.
        write_interval: Seconds between two batches into the database.
        clock: Returns Unix seconds.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        folder: Path,
        *,
        segment_bytes: int,
        write_interval: float,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._open: dict[str, bytes] = {}
        self._recovered = scan(folder)
        self._spool = Spool(folder, segment_bytes=segment_bytes, carry=self._open.values)
        self._writer = LedgerWriter(engine, self._spool, interval=write_interval)
        self._writing: asyncio.Task[None] | None = None

    @property
    def failing(self) -> bool:
        """Whether the last write to disk failed."""
        return self._spool.failing

    @property
    def lag(self) -> float:
        """Seconds that the oldest event outside the database may be old; 0 if all are in it."""
        return self._writer.lag

    @property
    def spool(self) -> Spool:
        """The spool, for its metrics."""
        return self._spool

    @property
    def recovered(self) -> Sequence[OpenRecord]:
        """Reservations that an earlier process left open."""
        return self._recovered.open

    async def start(self, prices: PriceSource, *, leave_open: bool = False) -> int:
        """Closes what a crash left open, as estimated, and starts the writer.

        Args:
            prices: Price them.
            leave_open: They stay open: a shared store knows what became of them.

        Returns:
            How many reservations were closed.

        Raises:
            Unavailable: Disk or database refuse.
        """
        now = int(self._clock() * 1000)
        orphans = () if leave_open else self._recovered.open
        if leave_open:
            self._open.update({record.id: frame(record) for record in self._recovered.open})
        for record in orphans:
            event = close_record(
                record,
                record.reserved,
                ORPHANED,
                ended_ms=now,
                prices=prices,
                estimated=True,
                reason="GATEWAY_RESTARTED",
            )
            self._spool.append(frame(event))
        if orphans or self._recovered.spoilt:
            _log.warning("ledger_recovered", orphans=len(orphans), spoilt=self._recovered.spoilt)
        await self.flush()
        self._writing = asyncio.create_task(self._writer.run(), name="ledger-writer")
        return len(orphans)

    async def stop(self) -> None:
        """Writes out what is queued; what the database refuses stays in the spool."""
        if self._writing is not None:
            self._writing.cancel()
            with suppress(asyncio.CancelledError):
                await self._writing
        try:
            await self.flush()
        except Unavailable:
            _log.warning("ledger_left_in_spool")
        await self._spool.close()

    def open(self, record: OpenRecord) -> None:
        """Notes a granted reservation; on disk within milliseconds."""
        line = frame(record)
        self._open[record.id] = line
        self._spool.append(line)

    def close(self, events: Sequence[UsageEvent]) -> Awaitable[None]:
        """Notes the events of a reservation, at once and together.

        The awaitable ends when they are on disk; it raises `Unavailable` if the disk
        refused, and the events stay queued.
        """
        self._open.pop(events[0].id, None)
        return self._spool.append_durably(frame(closing_record(events)))

    def forget(self, reservation_id: str) -> None:
        """Notes that another gateway process has closed a reservation."""
        if self._open.pop(reservation_id, None) is not None:
            self._spool.append(frame(ClosedElsewhere(reservation_id)))

    async def synced(self) -> None:
        """Returns when everything noted so far is on disk."""
        await self._spool.sync()

    async def flush(self) -> None:
        """Returns when everything noted so far is in the database, for reading own writes.

        Raises:
            Unavailable: Disk or database refuse; nothing is lost.
        """
        await self._spool.sync()
        try:
            await self._writer.drain()
        except (SQLAlchemyError, OSError) as err:
            raise _away() from err

    async def closed(self, ids: Collection[str]) -> Collection[str]:
        """Which of these reservations have an event, whichever process closed them.

        Raises:
            Unavailable: Disk or database refuse.
        """
        await self.flush()
        names, found = list(ids), set[str]()
        try:
            async with self._engine.connect() as connection:
                for at in range(0, len(names), _IDS_AT_ONCE):
                    some = usage_events.c.id.in_(names[at : at + _IDS_AT_ONCE])
                    found.update(await connection.scalars(select(usage_events.c.id).where(some)))
        except (SQLAlchemyError, OSError) as err:
            raise _away() from err
        return found

    async def consumed(self, tenant: str, meter: Meter, apart: Sequence[str] = ()) -> int:
        """What `tenant` consumed in the running window of `meter`, in internal counts.

        Args:
            tenant: Whose.
            meter: What is counted.
            apart: Ids of reservations whose events do not count.

        Raises:
            Unavailable: Disk or database refuse.
        """
        await self.flush()
        now = int(self._clock() * 1000)
        try:
            async with self._engine.connect() as connection:
                kept = ""
                # Months that moved to another zone meanwhile are asked for again.
                while kept != (zone := await kept_zone(connection, tenant)):
                    kept = zone
                    query = consumption_query(tenant, meter, now, kept, apart=apart)
                    rows = (await connection.execute(query)).all()
        except (SQLAlchemyError, OSError) as err:
            raise _away() from err
        used = consumption_of(rows, apart=apart)
        return -(-used // NANO_PER_COUNT) if meter.unit is Unit.COST else used


def _away() -> Unavailable:
    return Unavailable("The database can't be reached now.", retry_after=timedelta(seconds=2))
