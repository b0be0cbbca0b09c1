"""Moves events from the spool into the database, in batches; one task of the gateway runs it.

A batch and its roll-ups are one transaction. A row that is there already (a batch whose
commit was not seen, a segment read again after a crash) adds nothing to the roll-ups.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_gateway.usage.batch import batch_for
from atrium_gateway.usage.framing import records
from atrium_gateway.usage.kept import read_kept
from atrium_gateway.usage.late import set_late_aside
from atrium_gateway.usage.lock import write_beside_others
from atrium_gateway.usage.records import UsageEvent, events_of
from atrium_gateway.usage.rollup import roll_up
from atrium_gateway.usage.rows import event_row, storable
from atrium_gateway.usage.spool import Position, Spool, segment_path, segments

_log = structlog.get_logger(__name__)

_READ_BYTES = 1 << 19
"""About a thousand events: few enough to build without holding up the loop."""
_LONGEST_PAUSE_SECONDS = 10.0


class _Batch(NamedTuple):
    events: Sequence[UsageEvent]
    spoilt: int
    end: Position
    finished: Sequence[int]


class LedgerWriter:
    """Writes what the spool has committed.

    Args:
        engine: The database, upgraded.
        spool: The spool; its folder is read from the oldest segment on.
        interval: Seconds between two batches, above 0.
        clock: Seconds of a clock that never goes back, for `lag`.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        spool: Spool,
        *,
        interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._spool = spool
        self._interval = interval
        self._position = Position(min(segments(spool.folder), default=0), 0)
        self._turn = asyncio.Lock()
        self._batch = batch_for(engine.dialect)
        self._clock = clock
        self._caught_up = clock()

    @property
    def lag(self) -> float:
        """Seconds since the moment whose events are all in the database; 0 if it is now."""
        if self._position >= self._spool.committed:
            return 0.0
        return self._clock() - self._caught_up

    async def run(self) -> None:
        """Writes until cancelled; a database that is away is tried again, ever more slowly."""
        pause = self._interval
        while True:
            await asyncio.sleep(pause)
            try:
                await self.drain()
                pause = self._interval
            except (SQLAlchemyError, OSError) as err:
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                _log.warning("ledger_write_failed", error=type(err).__name__, retry_seconds=pause)
            except Exception as err:
                # The task's edge: whatever it is, the spool keeps the events until it is mended.
                pause = _LONGEST_PAUSE_SECONDS
                _log.error("ledger_writer_broken", exc_info=err)

    async def drain(self) -> None:
        """Writes everything that is committed now.

        Raises:
            SQLAlchemyError: The database refused; nothing is lost, call again.
            OSError: A segment can't be read, or the database can't be reached.
        """
        target, begun = self._spool.committed, self._clock()
        async with self._turn:
            while self._position < target:
                batch = await asyncio.to_thread(self._read, self._spool.committed)
                if batch.spoilt:
                    _log.error("spool_records_spoilt", count=batch.spoilt)
                await self._store(batch.events)
                if batch.end == self._position:
                    break  # a torn tail, left by a crash
                self._position = batch.end
                for number in batch.finished:
                    segment_path(self._spool.folder, number).unlink(missing_ok=True)
            self._caught_up = max(self._caught_up, begun)

    def _read(self, committed: Position) -> _Batch:
        """Reads on from the position; runs in a thread."""
        number, offset = self._position
        path = segment_path(self._spool.folder, number)
        size = committed.offset if number == committed.segment else None
        length = _READ_BYTES if size is None else min(size - offset, _READ_BYTES)
        data = b""
        if path.exists():
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(length)
        events: list[UsageEvent] = []
        spoilt = consumed = 0
        for record, end in records(data):
            consumed = end
            if record is None:
                spoilt += 1
            else:
                events += map(storable, events_of(record))
        if consumed or number == committed.segment:
            return _Batch(events, spoilt, Position(number, offset + consumed), ())
        # Nothing whole is left (at most a torn tail): on to the next segment.
        return _Batch(events, spoilt, Position(number + 1, 0), (number,))

    async def _store(self, events: Sequence[UsageEvent]) -> None:
        """Stores a batch and its roll-ups in one transaction."""
        if not events:
            return
        async with self._engine.connect() as connection:
            await write_beside_others(connection)
            kept = await read_kept(connection, {event.tenant for event in events})
            by_id = {event.id: kept.named(event) for event in events}
            remembered = await set_late_aside(connection, by_id, kept)
            rows = [event_row(event) for _, event in sorted(remembered.items())]
            new = await self._batch.insert_events(connection, rows) if rows else set()
            if new:
                sums = roll_up((by_id[each] for each in new), kept)
                await self._batch.add_sums(connection, sums)
            await connection.commit()
