"""Events that come back after retention deleted those of their time: kept apart, not counted.

A spool of a gateway that was away for longer than events are kept holds both what was
written before and what never was, and no id tells them apart any more.
"""

from collections.abc import Mapping, Sequence

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from atrium_gateway.database import upsert
from atrium_gateway.usage.framing import frame, unframe
from atrium_gateway.usage.kept import Kept
from atrium_gateway.usage.records import UsageEvent
from atrium_gateway.usage.tables import ledger_late, usage_events

_log = structlog.get_logger(__name__)


async def set_late_aside(
    connection: AsyncConnection, events: Mapping[str, UsageEvent], kept: Kept
) -> Mapping[str, UsageEvent]:
    """Moves what is too old to be told from what was deleted into `ledger_late`.

    Args:
        connection: In the transaction of the batch.
        events: The batch by id.
        kept: Says what is too old.

    Returns:
        The events that the ledger remembers, and those that it would.
    """
    old = {key: event for key, event in events.items() if event.started_ms < kept.retained_ms}
    if not old:
        return events
    known = select(usage_events.c.id).where(usage_events.c.id.in_(sorted(old)))
    still_there = set(await connection.scalars(known))
    late = [old[key] for key in sorted(old.keys() - still_there)]
    if late:
        _log.error("ledger_events_too_late", events=len(late))
        rows = [
            {
                "id": event.id,
                "tenant": event.tenant,
                "started_ms": event.started_ms,
                "event": frame(event).decode(),
            }
            for event in late
        ]
        added = upsert(connection.dialect.name)(ledger_late).on_conflict_do_nothing()
        await connection.execute(added, rows)
    return {key: event for key, event in events.items() if key not in old or key in still_there}


async def late_events(engine: AsyncEngine) -> Sequence[UsageEvent]:
    """What was moved there, by time."""
    query = select(ledger_late.c.event).order_by(ledger_late.c.started_ms, ledger_late.c.id)
    async with engine.connect() as connection:
        lines = await connection.scalars(query)
        found = [unframe(line.rstrip("\n").encode()) for line in lines]
    return [event for event in found if isinstance(event, UsageEvent)]
