"""What a window of a limit has consumed, from the ledger; counters start from it.

The roll-ups tell it: a month is one read where the ledger keeps the tenant's months in the
zone of the window, and all time is its months. Where the zones differ, or a window begins
within an hour of UTC, finer sums and events make up the rest: exact for any window.
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

from atrium_gateway.quota.counters import window_bounds
from atrium_gateway.quota.limits import ANY_CAPABILITY, Meter, Unit, Window
from atrium_gateway.usage.reports_cover import Level, Piece, cover
from atrium_gateway.usage.reports_query import event_filters, sums_query
from atrium_gateway.usage.reports_views import Filters
from atrium_gateway.usage.split import share_id
from atrium_gateway.usage.tables import usage_events

_EVER: Final = 2**53
"""Further from 1970 than any month begins, milliseconds."""
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


def filters_of(meter: Meter) -> Filters:
    """Which events a meter counts."""
    return Filters(
        capability=() if meter.capability == ANY_CAPABILITY else (meter.capability,),
        model=(meter.model,) if meter.model else (),
        key=(meter.key_id,) if meter.key_id else (),
        user=(meter.subject,) if meter.subject else (),
    )


def consumption_query(
    tenant: str, meter: Meter, now: int, kept: str, *, apart: Sequence[str] = ()
) -> Select[str, str, int] | CompoundSelect[str, str, int]:
    """Selects what was admitted in the window of `meter` around `now`, for `consumption_of`.

    One statement, so that all of it is of one moment.

    Args:
        tenant: Whose.
        meter: Says what is counted, and of which capability, model, key and user.
        now: Unix milliseconds.
        kept: Zone of the days and months that the ledger keeps of the tenant.
        apart: Ids of reservations whose events are selected one by one.
    """
    start, end = window_bounds(meter.window, now, meter.time_zone)
    if meter.window is Window.TOTAL:
        pieces: Sequence[Piece] = (Piece(Level.MONTH, -_EVER, _EVER, 1, None),)
    else:
        pieces = cover(start, end, kept)
    only = filters_of(meter)
    sums = sums_query(tenant, pieces, columns=(), sums=_COLUMNS[meter.unit], only=only).subquery()
    whole = select(literal("", String), literal("", String), _amount(sums, meter))
    if not apart:
        return whole
    # The events of one reservation share the first half of its id; all were made of late.
    id_, begins = usage_events.c.id, sorted({name[:_SHARED] for name in apart})
    some = select(id_, usage_events.c.model, _amount(usage_events, meter)).where(
        usage_events.c.tenant == tenant,
        *event_filters(only),
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


def _amount(source: FromClause, meter: Meter) -> ColumnElement[int]:
    first, *more = (source.c[name] for name in _COLUMNS[meter.unit])
    total: ColumnElement[int] = first
    for column in more:
        total = total + column
    return total
