"""What a window of a limit has consumed, from the ledger; counters start from it.

Full hours come from the roll-ups. Where a window begins or ends within an hour of UTC, as
days do in some time zones, the rest comes from the events: exact for any window.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    FromClause,
    Row,
    Select,
    String,
    func,
    literal,
    select,
    union_all,
)

from atrium_gateway.quota.limits import ANY_CAPABILITY, Meter, Unit
from atrium_gateway.usage.split import share_id
from atrium_gateway.usage.tables import usage_events, usage_hourly

_HOUR_MS: Final = 3_600_000
_SHARED: Final = 18
"""Characters of an id that all events of a reservation begin with; see `share_id`."""
_COLUMNS: Final[dict[Unit, tuple[str, ...]]] = {
    Unit.REQUESTS: ("requests",),
    Unit.TOKENS: ("input_tokens", "output_tokens"),
    Unit.AUDIO_SECONDS: ("input_audio_ms", "output_audio_ms"),
    Unit.CHARACTERS: ("characters",),
    Unit.IMAGES: ("images",),
    Unit.MEGAPIXEL_STEPS: ("millimegapixel_steps",),
    Unit.PAGES: ("pages",),
    Unit.GPU_MILLISECONDS: ("inference_ms",),
    Unit.COST: ("cost_nano",),
}


def consumption_query(
    tenant: str, meter: Meter, start: int, end: int, *, apart: Sequence[str] = ()
) -> Select[str, str, int] | CompoundSelect[str, str, int]:
    """Selects what was admitted in ``[start, end)``, for `consumption_of`.

    One statement, so that all of it is of one moment.

    Args:
        tenant: Whose.
        meter: Says what is counted, and of which capability, model, key and user.
        start: Unix milliseconds.
        end: Unix milliseconds; at least an hour later.
        apart: Ids of reservations whose events are selected one by one.
    """
    first, last = -(-start // _HOUR_MS), end // _HOUR_MS
    parts = [_sum(usage_hourly, tenant, meter, usage_hourly.c.hour, first, last)]
    for left, right in ((start, first * _HOUR_MS), (last * _HOUR_MS, end)):
        if left < right:
            parts.append(_sum(usage_events, tenant, meter, usage_events.c.started_ms, left, right))
    total: ColumnElement[int] = parts[0].scalar_subquery()
    for part in parts[1:]:
        total = total + part.scalar_subquery()
    whole = select(literal("", String), literal("", String), total)
    if not apart:
        return whole
    # The events of one reservation share the first half of its id; all were made of late.
    id_, begins = usage_events.c.id, sorted({name[:_SHARED] for name in apart})
    some = select(id_, usage_events.c.model, _amount(usage_events, meter)).where(
        *_chosen(usage_events, tenant, meter),
        usage_events.c.started_ms >= start,
        usage_events.c.started_ms < end,
        id_ >= begins[0],
        id_ < begins[-1] + "~",
        func.substr(id_, 1, _SHARED).in_(begins),
    )
    return union_all(whole, some)


def consumption_of(rows: Iterable[Row[str, str, int]], *, apart: Sequence[str] = ()) -> int:
    """Adds up what `consumption_query` selected, without the reservations `apart`."""
    by_beginning: dict[str, list[str]] = {}
    for name in apart:
        by_beginning.setdefault(name[:_SHARED], []).append(name)
    used = 0
    for event, model, amount in rows:
        if not event:
            used += int(amount or 0)
        elif any(event in (name, share_id(name, model)) for name in by_beginning[event[:_SHARED]]):
            used -= int(amount or 0)
    return used


def _amount(table: FromClause, meter: Meter) -> ColumnElement[int]:
    first, *more = (table.c[name] for name in _COLUMNS[meter.unit])
    total: ColumnElement[int] = first
    for column in more:
        total = total + column
    return total


def _sum(
    table: FromClause,
    tenant: str,
    meter: Meter,
    time: ColumnElement[int],
    start: int,
    end: int,
) -> Select[int]:
    return select(func.coalesce(func.sum(_amount(table, meter)), 0)).where(
        *_chosen(table, tenant, meter), time >= start, time < end
    )


def _chosen(table: FromClause, tenant: str, meter: Meter) -> list[ColumnElement[bool]]:
    """What rows a meter counts."""
    chosen = [table.c.tenant == tenant]
    if meter.capability != ANY_CAPABILITY:
        chosen.append(table.c.capability == meter.capability)
    own = {"model": meter.model, "key_id": meter.key_id, "subject": meter.subject}
    return chosen + [table.c[name] == wanted for name, wanted in own.items() if wanted]
