"""Events for the ledger's tests, and what a database says of them."""

from collections import Counter
from collections.abc import Iterable

from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_gateway.usage.records import REFUNDED, Units, UsageEvent
from atrium_gateway.usage.rows import counts_of
from atrium_gateway.usage.split import share_id
from atrium_gateway.usage.tables import (
    DAILY_DIMENSIONS,
    DIMENSIONS,
    NAMELESS,
    SUMS,
    usage_daily,
    usage_events,
    usage_hourly,
    usage_nameless,
)

HOUR_MS = 3_600_000
Sums = dict[tuple[object, ...], list[int]]


def event_id(number: int) -> str:
    return f"01900000-0000-7000-8000-{number:012x}"


def make_event(number: int, *, started_ms: int = 0, tokens: int = 3, **fields) -> UsageEvent:
    named = {
        "tenant": "acme",
        "subject": "u",
        "capability": "chat",
        "model": "m",
        "method": "x",
        "request_id": f"r{number}",
        "started_ms": started_ms,
        "ended_ms": started_ms + 7,
        "outcome": "completed",
        "units": Units(tokens, 2 * tokens),
        "reserved": Units(tokens, 3 * tokens),
        "cost_nano": 5 * tokens,
        "provider_cost_nano": 4 * tokens,
        **fields,
    }
    return UsageEvent(event_id(number), **named)


@st.composite
def events(draw, serial: int) -> list[UsageEvent]:
    """Events of the tenant `t<serial>`; some stand beside the one before, split by model."""
    made: list[UsageEvent] = []
    for number in range(draw(st.integers(0, 25))):
        outcome = draw(st.sampled_from(["completed", "cancelled", REFUNDED, "expired"]))
        event = make_event(
            number,
            tenant=f"t{serial}",
            started_ms=draw(st.sampled_from([0, 1, HOUR_MS - 1, HOUR_MS, 50 * HOUR_MS])),
            tokens=draw(st.integers(0, 10**9)),
            subject=draw(st.sampled_from(["u", "v", "ü'\" = 1"])),
            key_id=draw(st.sampled_from([None, "k1", "k2"])),
            capability=draw(st.sampled_from(["chat", "embedding"])),
            model=draw(st.sampled_from(["m", "n"])),
            outcome=outcome,
            requests=int(outcome != REFUNDED),
            inference_ms=draw(st.integers(0, 10**6)),
        )
        fields = {name: getattr(event, name) for name in event.__struct_fields__}
        own = f"{serial:08x}{event.id[8:]}"
        made.append(UsageEvent(**{**fields, "id": own}))
        if draw(st.booleans()):
            share = {"id": share_id(own, "other"), "model": "other", "requests": 0}
            made.append(UsageEvent(**{**fields, **share}))
    return made


def sums_of(events: Iterable[UsageEvent]) -> Sums:
    """What the roll-ups of distinct `events` must be, summed the plain way."""
    sums: Sums = {}
    for event in {each.id: each for each in events}.values():
        key = (
            event.tenant,
            event.started_ms // HOUR_MS,
            event.capability,
            event.model,
            event.key_id or "",
            event.subject,
            event.outcome,
        )
        refunded = int(event.outcome == REFUNDED)
        counts = [*counts_of(event), event.provider_cost_nano, 1, refunded]
        sums[key] = [a + b for a, b in zip(sums.get(key, [0] * len(counts)), counts, strict=True)]
    return sums


async def rolled_up(engine: AsyncEngine, tenant: str = "acme") -> Sums:
    """The roll-ups in the database."""
    async with engine.connect() as connection:
        rows = await connection.execute(select(usage_hourly).where(usage_hourly.c.tenant == tenant))
        return {
            tuple(row._mapping[name] for name in DIMENSIONS): [row._mapping[n] for n in SUMS]
            for row in rows
        }


async def rolled_up_days(engine: AsyncEngine, tenant: str = "acme") -> Sums:
    """The daily roll-ups in the database."""
    async with engine.connect() as connection:
        rows = await connection.execute(select(usage_daily).where(usage_daily.c.tenant == tenant))
        return {
            tuple(row._mapping[name] for name in DAILY_DIMENSIONS): [row._mapping[n] for n in SUMS]
            for row in rows
        }


async def rolled_up_nameless(engine: AsyncEngine, tenant: str = "acme") -> Sums:
    """The hours of all keys and users together in the database."""
    table = usage_nameless
    async with engine.connect() as connection:
        rows = await connection.execute(select(table).where(table.c.tenant == tenant))
        return {
            tuple(row._mapping[name] for name in NAMELESS): [row._mapping[n] for n in SUMS]
            for row in rows
        }


def nameless_of(hours: Sums) -> Sums:
    """Hourly sums without keys and users, summed the plain way."""
    found: Sums = {}
    for key, counts in hours.items():
        kept = tuple(part for name, part in zip(DIMENSIONS, key, strict=True) if name in NAMELESS)
        found[kept] = [
            a + b for a, b in zip(found.get(kept, [0] * len(counts)), counts, strict=True)
        ]
    return found


def days_of(hours: Sums) -> Sums:
    """Hourly sums by days, summed the plain way."""
    days: Sums = {}
    for (tenant, hour, *rest), counts in hours.items():
        key = (tenant, hour // 24 * 24 * HOUR_MS, *rest)
        days[key] = [a + b for a, b in zip(days.get(key, [0] * len(counts)), counts, strict=True)]
    return days


async def ids_of(engine: AsyncEngine, tenant: str = "acme") -> Counter[str]:
    """Ids of a tenant's events in the database."""
    async with engine.connect() as connection:
        query = select(usage_events.c.id).where(usage_events.c.tenant == tenant)
        return Counter(row.id for row in await connection.execute(query))
