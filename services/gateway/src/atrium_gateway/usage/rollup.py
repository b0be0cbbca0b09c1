"""Sums events by the hour and by all that usage is grouped by; the writer adds them up."""

from collections.abc import Iterable

from atrium_gateway.usage.records import REFUNDED, UsageEvent
from atrium_gateway.usage.rows import counts_of
from atrium_gateway.usage.tables import DIMENSIONS, SUMS

_MS_PER_HOUR = 3_600_000

RollUpKey = tuple[str, int, str, str, str, str, str]


def roll_up(events: Iterable[UsageEvent]) -> list[dict[str, int | str]]:
    """Hourly sums of `events`, sorted by key so that two writers can't deadlock."""
    sums: dict[RollUpKey, list[int]] = {}
    for event in events:
        key = _key(event)
        counts = [*counts_of(event), event.provider_cost_nano, 1, int(event.outcome == REFUNDED)]
        kept = sums.get(key)
        sums[key] = counts if kept is None else [a + b for a, b in zip(kept, counts, strict=True)]
    return [
        {
            **dict(zip(DIMENSIONS, key, strict=True)),
            **dict(zip(SUMS, counts, strict=True)),
        }
        for key, counts in sorted(sums.items())
    ]


def _key(event: UsageEvent) -> RollUpKey:
    """In the order of `DIMENSIONS`."""
    return (
        event.tenant,
        event.started_ms // _MS_PER_HOUR,
        event.capability,
        event.model,
        event.key_id or "",
        event.subject,
        event.outcome,
    )
