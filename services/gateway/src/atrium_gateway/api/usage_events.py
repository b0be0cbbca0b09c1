"""`GET /api/usage/events`: single requests, each with what was held, charged, and why."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import msgspec

from atrium_gateway.api.decode import convert
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.usage import COUNT_NAMES
from atrium_gateway.api.usage_query import (
    counts,
    filters_of,
    money,
    native,
    parameters,
    period,
    whose,
)
from atrium_gateway.api.usage_schema import Charge, EventObject, EventsAnswer, EventsQuery
from atrium_gateway.usage.reports import MAX_EVENTS, EventView
from atrium_gateway.usage.reports_csv import CSV, Cell, csv_lines
from atrium_gateway.usage.reports_explain import explanation
from atrium_gateway.usage.reports_prices import ChargeLine, UnitPrices, charge_lines, event_counts

_ENCODER = msgspec.json.Encoder()
_DEFAULT_LIMIT = 100
_COLUMNS = (
    "id",
    "request_id",
    "started_at",
    "ended_at",
    "user",
    "key",
    "capability",
    "model",
    "engine",
    "method",
    "outcome",
    "reason",
    "estimated",
    "price_version",
)


async def list_usage_events(exchange: Exchange) -> None:
    """Lists single requests, newest first, in pages; as CSV all of them, if no limit is given."""
    principal = await exchange.authenticate()
    query = convert(parameters(exchange), EventsQuery)
    tenant = whose(principal, query.tenant)
    start, end = period(exchange, query)
    pages = _pages(exchange, query, tenant, start=start, end=end)
    if query.format == "csv":
        await _export(exchange, pages)
        return
    events = await anext(pages)
    prices = await exchange.gateway.reports.prices()
    limit = query.limit or _DEFAULT_LIMIT
    answer = EventsAnswer(
        tenant=tenant,
        events=[_object(event, prices) for event in events],
        next=events[-1].id if len(events) == limit else None,
    )
    await exchange.reply(_ENCODER.encode(answer))


async def _pages(
    exchange: Exchange, query: EventsQuery, tenant: str, *, start: datetime, end: datetime
) -> AsyncIterator[Sequence[EventView]]:
    """The pages that are asked for: all of an export without a limit, else one."""
    everything = query.format == "csv" and query.limit is None
    limit = MAX_EVENTS if everything else query.limit or _DEFAULT_LIMIT
    after = query.after
    while True:
        found = await exchange.gateway.reports.events(
            tenant, start=start, end=end, limit=limit, after=after, only=filters_of(query)
        )
        yield found
        if not everything or len(found) < limit:
            return
        after = found[-1].id


async def _export(exchange: Exchange, pages: AsyncIterator[Sequence[EventView]]) -> None:
    first = await anext(pages)  # what can't be told is refused before the answer begins
    await exchange.start(content_type=CSV, headers={})
    await exchange.write(csv_lines([[*_COLUMNS, *COUNT_NAMES], *map(_row, first)]))
    async for events in pages:
        await exchange.write(csv_lines(map(_row, events)))
    await exchange.write(b"", last=True)


def _row(event: EventView) -> list[Cell]:
    return [
        event.id,
        event.request_id,
        event.started_at.isoformat(),
        event.ended_at.isoformat(),
        event.subject,
        event.key_id,
        event.capability,
        event.model,
        event.engine,
        event.method,
        event.outcome,
        event.reason,
        event.estimated,
        event.price_version,
        *msgspec.structs.astuple(counts(event.totals)),
    ]


def _object(event: EventView, prices: UnitPrices) -> EventObject:
    applied = prices.of_version(event.price_version, event.model)
    lines = charge_lines(applied, event_counts(event.totals))
    return EventObject(
        id=event.id,
        subject=event.subject,
        key_id=event.key_id,
        capability=event.capability,
        model=event.model,
        engine=event.engine,
        method=event.method,
        request_id=event.request_id,
        started_at=event.started_at,
        ended_at=event.ended_at,
        outcome=event.outcome,
        reason=event.reason,
        estimated=event.estimated,
        price_version=event.price_version,
        totals=counts(event.totals),
        reserved=dict(native(name, count) for name, count in event.reserved.items()),
        unit_prices={unit: money(price) for unit, price in applied.items()},
        charges=[charge(line) for line in lines],
        explanation=explanation(event),
    )


def charge(line: ChargeLine) -> Charge:
    """A line of a price in the units that callers see."""
    _, count = native(line.field, line.count)
    return Charge(
        unit=line.unit,
        count=count,
        unit_price=money(line.unit_price),
        amount=money(line.amount),
    )
