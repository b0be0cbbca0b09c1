"""What a window of a limit has consumed, from the ledger; counters start from it.

Full hours come from the roll-ups. Where a window begins or ends within an hour of UTC, as
days do in some time zones, the rest comes from the events: exact for any window.
"""

from typing import Final

from sqlalchemy import ColumnElement, FromClause, Select, func, select

from atrium_gateway.quota.limits import ANY_CAPABILITY, Meter, Unit
from atrium_gateway.usage.tables import usage_events, usage_hourly

_HOUR_MS: Final = 3_600_000
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


def consumption_query(tenant: str, meter: Meter, start: int, end: int) -> Select[tuple[int]]:
    """Selects what was admitted in ``[start, end)``, one number, costs in billionths.

    Args:
        tenant: Whose.
        meter: Says what is counted, and of which capability, model, key and user.
        start: Unix milliseconds.
        end: Unix milliseconds; at least an hour later.
    """
    first, last = -(-start // _HOUR_MS), end // _HOUR_MS
    parts = [_sum(usage_hourly, tenant, meter, usage_hourly.c.hour, first, last)]
    for left, right in ((start, first * _HOUR_MS), (last * _HOUR_MS, end)):
        if left < right:
            parts.append(_sum(usage_events, tenant, meter, usage_events.c.started_ms, left, right))
    total: ColumnElement[int] = parts[0].scalar_subquery()
    for part in parts[1:]:
        total = total + part.scalar_subquery()
    return select(total)


def _sum(
    table: FromClause,
    tenant: str,
    meter: Meter,
    time: ColumnElement[int],
    start: int,
    end: int,
) -> Select[tuple[int]]:
    amount = sum(table.c[name] for name in _COLUMNS[meter.unit])
    query = select(func.coalesce(func.sum(amount), 0)).where(
        table.c.tenant == tenant, time >= start, time < end
    )
    if meter.capability != ANY_CAPABILITY:
        query = query.where(table.c.capability == meter.capability)
    own = {"model": meter.model, "key_id": meter.key_id, "subject": meter.subject}
    for name, wanted in own.items():
        if wanted:
            query = query.where(table.c[name] == wanted)
    return query
