"""`GET /api/usage/statement`: the bill of a month, by model, with prices, counts and amounts."""

from datetime import tzinfo
from decimal import Decimal

import msgspec

from atrium_gateway.api.decode import convert
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.usage_events import charge
from atrium_gateway.api.usage_query import counts, money, parameters, whose
from atrium_gateway.api.usage_schema import StatementAnswer, StatementLine, StatementQuery
from atrium_gateway.usage.reports_calendar import month_bounds
from atrium_gateway.usage.reports_csv import CSV, Cell, csv_lines
from atrium_gateway.usage.reports_statement import Spell, spells

_ENCODER = msgspec.json.Encoder()
_COLUMNS = ("model", "start_time", "end_time", "unit", "count", "unit_price", "amount")
_ROUNDING = "rounding"
"""Unit of the row of an export that makes a model's rows add up to what was charged."""


async def show_usage_statement(exchange: Exchange) -> None:
    """Bills a month of the tenant's calendar; so far, if it is running."""
    principal = await exchange.authenticate()
    query = convert(parameters(exchange), StatementQuery)
    tenant = whose(principal, query.tenant)
    zone = await exchange.gateway.standing.zone(tenant)
    month = query.month or f"{exchange.gateway.now().astimezone(zone):%Y-%m}"
    answer = await _statement(exchange, tenant, month, zone)
    if query.format == "csv":
        name = f'attachment; filename="{tenant}-{month}.csv"'
        body = csv_lines([_COLUMNS, *(row for line in answer.lines for row in _rows(line))])
        await exchange.reply(body, content_type=CSV, headers={"content-disposition": name})
        return
    await exchange.reply(_ENCODER.encode(answer))


async def _statement(exchange: Exchange, tenant: str, month: str, zone: tzinfo) -> StatementAnswer:
    year, number = (int(part) for part in month.split("-"))
    start, end = month_bounds(year, number, zone)
    lines = [
        _line(spell)
        for spell in await spells(exchange.gateway.reports, tenant, start=start, end=end)
    ]
    return StatementAnswer(
        tenant=tenant,
        month=month,
        time_zone=str(zone),
        start_time=start,
        end_time=end,
        complete=exchange.gateway.now() >= end,
        lines=lines,
        amount=money(sum((Decimal(line.amount) for line in lines), Decimal())),
    )


def _line(spell: Spell) -> StatementLine:
    return StatementLine(
        model=spell.model,
        start_time=spell.start,
        end_time=spell.end,
        totals=counts(spell.totals),
        unit_prices={unit: money(price) for unit, price in spell.prices.items()},
        charges=[charge(line) for line in spell.charges],
        rounding=money(spell.rounding),
        amount=money(spell.totals.cost),
    )


def _rows(line: StatementLine) -> list[list[Cell]]:
    """The rows of a line: one for each charge, and what is left; they add up to its amount."""
    named: list[Cell] = [line.model, line.start_time.isoformat(), line.end_time.isoformat()]
    rows: list[list[Cell]] = [
        [*named, each.unit, each.count, each.unit_price, each.amount] for each in line.charges
    ]
    if Decimal(line.rounding) or not rows:
        # What is free has one row, too: its requests.
        count = None if rows else line.totals.requests
        amount = Decimal(line.rounding if rows else line.amount)
        rows.append([*named, _ROUNDING if rows else "request", count, None, amount])
    return rows
