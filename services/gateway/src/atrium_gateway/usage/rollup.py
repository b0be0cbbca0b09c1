"""Sums events by hours, days and all that usage is grouped by; the writer adds them up."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from atrium_gateway.usage.records import REFUNDED, UsageEvent
from atrium_gateway.usage.rows import counts_of
from atrium_gateway.usage.tables import DAILY_DIMENSIONS, DIMENSIONS, SUMS

_MS_PER_HOUR = 3_600_000

_HOURS_PER_DAY = 24

RollUpKey = tuple[str, int, str, str, str, str, str]
Sums = dict[RollUpKey, list[int]]
SumRow = dict[str, int | str]


@dataclass(frozen=True, slots=True)
class RollUps:
    """What is added to each table, sorted by key so that two writers can't deadlock."""

    hourly: Sequence[SumRow]
    daily: Sequence[SumRow]


def roll_up(events: Iterable[UsageEvent]) -> RollUps:
    """The sums of `events`."""
    hours: Sums = {}
    for event in events:
        counts = [*counts_of(event), event.provider_cost_nano, 1, int(event.outcome == REFUNDED)]
        _add(hours, _key(event), counts)
    days: Sums = {}
    for (tenant, hour, *rest), counts in hours.items():
        capability, model, key_id, subject, outcome = rest
        day = hour // _HOURS_PER_DAY
        _add(days, (tenant, day, capability, model, key_id, subject, outcome), counts)
    return RollUps(_rows(hours, DIMENSIONS), _rows(days, DAILY_DIMENSIONS))


def _add(sums: Sums, key: RollUpKey, counts: list[int]) -> None:
    kept = sums.get(key)
    sums[key] = counts if kept is None else [a + b for a, b in zip(kept, counts, strict=True)]


def _rows(sums: Sums, names: Sequence[str]) -> Sequence[SumRow]:
    return [
        {**dict(zip(names, key, strict=True)), **dict(zip(SUMS, counts, strict=True))}
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
