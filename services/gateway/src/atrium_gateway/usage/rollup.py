"""Sums events by hours, days, months and all that usage is grouped by; the writer adds them up."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from atrium_gateway.usage.kept import Kept
from atrium_gateway.usage.records import REFUNDED, UsageEvent
from atrium_gateway.usage.rows import counts_of
from atrium_gateway.usage.tables import (
    DAILY_DIMENSIONS,
    DIMENSIONS,
    MONTHLY_DIMENSIONS,
    NAMELESS,
    SUMS,
)
from atrium_gateway.usage.zones import day_around, month_around

_MS_PER_HOUR = 3_600_000

RollUpKey = tuple[str, int, *tuple[str, ...]]
Sums = dict[RollUpKey, list[int]]
SumRow = dict[str, int | str]


@dataclass(frozen=True, slots=True)
class RollUps:
    """What is added to each table, sorted by key so that two writers can't deadlock."""

    hourly: Sequence[SumRow]
    nameless: Sequence[SumRow]
    daily: Sequence[SumRow]
    monthly: Sequence[SumRow]


def roll_up(events: Iterable[UsageEvent], kept: Kept) -> RollUps:
    """The sums of `events`, by days and months of the zones that `kept` names."""
    hours: Sums = {}
    days: Sums = {}
    for event in events:
        counts = [*counts_of(event), event.provider_cost_nano, 1, int(event.outcome == REFUNDED)]
        rest = (event.capability, event.model, event.key_id or "", event.subject, event.outcome)
        started, tenant = event.started_ms, event.tenant
        _add(hours, (tenant, started // _MS_PER_HOUR, *rest), counts)
        # From events, for not every zone's days begin at an hour of UTC.
        _add(days, (tenant, day_around(started, kept.zone(tenant))[0], *rest), counts)
    nameless: Sums = {}
    for (tenant, hour, *named), counts in hours.items():
        capability, model, _, _, outcome = named
        _add(nameless, (tenant, hour, capability, model, outcome), counts)
    months: Sums = {}
    for (tenant, day, *named), counts in days.items():
        month = month_around(day, kept.zone(tenant))[0]
        _add(months, (tenant, month, *named), counts)
    return RollUps(
        _rows(hours, DIMENSIONS),
        _rows(nameless, NAMELESS),
        _rows(days, DAILY_DIMENSIONS),
        _rows(months, MONTHLY_DIMENSIONS),
    )


def _add(sums: Sums, key: RollUpKey, counts: list[int]) -> None:
    kept = sums.get(key)
    sums[key] = counts if kept is None else [a + b for a, b in zip(kept, counts, strict=True)]


def _rows(sums: Sums, names: Sequence[str]) -> Sequence[SumRow]:
    return [
        {**dict(zip(names, key, strict=True)), **dict(zip(SUMS, counts, strict=True))}
        for key, counts in sorted(sums.items())
    ]
