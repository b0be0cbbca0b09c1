"""`GET /api/usage/summary`: the running month, every limit, and where both are heading."""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from atrium_gateway.api.decode import convert
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.usage_query import counts, money, parameters, whose
from atrium_gateway.api.usage_schema import (
    Amount,
    LimitView,
    PeriodView,
    SummaryAnswer,
    SummaryQuery,
)
from atrium_gateway.auth.principal import Principal
from atrium_gateway.quota.limits import Unit
from atrium_gateway.standing import LimitStanding, scaled
from atrium_gateway.usage.reports import Totals
from atrium_gateway.usage.reports_calendar import month_bounds

_ENCODER = msgspec.json.Encoder()
_MILLISECOND = timedelta(milliseconds=1)
_NOW = timedelta(milliseconds=1)
"""The present millisecond is over when it is asked for what was until now."""


async def show_usage_summary(exchange: Exchange) -> None:
    """Sums the running month and tells what is left of every limit that binds the caller."""
    principal = await exchange.authenticate()
    query = convert(parameters(exchange), SummaryQuery)
    tenant = whose(principal, query.tenant)
    if tenant != principal.tenant:
        principal = Principal(tenant=tenant, subject="")  # an operator has no limits there
    gateway = exchange.gateway
    zone, now = await gateway.standing.zone(tenant), gateway.now()
    local = now.astimezone(zone)
    start, end = month_bounds(local.year, local.month, zone)
    totals = await gateway.reports.totals(tenant, start=start, end=now + _NOW)
    answer = SummaryAnswer(
        tenant=tenant,
        time_zone=str(zone),
        time=now,
        period=PeriodView(
            start_time=start,
            end_time=end,
            totals=counts(totals),
            forecast=counts(_forecast(totals, start=start, now=now, end=end)),
        ),
        limits=[_view(limit) for limit in await gateway.standing.limits(principal)],
    )
    await exchange.reply(_ENCODER.encode(answer))


def _forecast(totals: Totals, *, start: datetime, now: datetime, end: datetime) -> Totals:
    """What the totals grow to by `end` at the rate since `start`."""

    def grown(used: Decimal) -> Decimal:
        return scaled(used, start=start, now=now, end=end)

    def number(count: int) -> int:
        return int(grown(Decimal(count)))

    def span(time: timedelta) -> timedelta:
        return number(time // _MILLISECOND) * _MILLISECOND

    return Totals(
        requests=number(totals.requests),
        refunded=number(totals.refunded),
        input_tokens=number(totals.input_tokens),
        output_tokens=number(totals.output_tokens),
        cached_input_tokens=number(totals.cached_input_tokens),
        characters=number(totals.characters),
        input_audio=span(totals.input_audio),
        output_audio=span(totals.output_audio),
        images=number(totals.images),
        millimegapixel_steps=number(totals.millimegapixel_steps),
        pages=number(totals.pages),
        inference_time=span(totals.inference_time),
        cost=grown(totals.cost),
    )


def _view(standing: LimitStanding) -> LimitView:
    meter = standing.meter
    show = shown(meter.unit)
    return LimitView(
        name=meter.name,
        scope=meter.scope,
        capability=meter.capability,
        model=meter.model or None,
        unit=meter.unit,
        window=meter.window,
        limit=show(standing.limit),
        used=None if standing.used is None else show(standing.used),
        remaining=None if standing.remaining is None else show(standing.remaining),
        reset_time=standing.resets,
        forecast=None if standing.forecast is None else show(standing.forecast),
        exhausted_at=standing.exhausted,
    )


def shown(unit: Unit) -> Callable[[Decimal], Amount]:
    """How amounts of a unit are written."""
    if unit is Unit.COST:
        return money
    return lambda amount: float(amount) if unit.scale > 1 else int(amount)
