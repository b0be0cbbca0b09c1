"""`atrium usage statement`: the bill of a tenant's month."""

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_common.errors import InvalidArgument, NotFound
from atrium_gateway.cli.output import Json, Record, show_list
from atrium_gateway.cli.session import with_engine
from atrium_gateway.cli.tenant import TenantId
from atrium_gateway.tenants.repository import TenantRepository
from atrium_gateway.usage.reports import UsageReports
from atrium_gateway.usage.reports_calendar import month_bounds, zone_of
from atrium_gateway.usage.reports_csv import csv_lines
from atrium_gateway.usage.reports_statement import Spell, spells

_MONTH = re.compile(r"(?:19[7-9]\d|[2-8]\d{3})-(?:0[1-9]|1[0-2])")
_COLUMNS = ("model", "start", "end", "unit", "count", "unit_price", "amount")


def statement(
    tenant: TenantId,
    month: Annotated[str, typer.Option(help="Such as 2026-11; the running one if not given.")] = "",
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of text.")] = False,
) -> None:
    """Bills a month of the tenant's calendar: each unit of each model, and their sum.

    Counts are internal: audio in milliseconds, megapixel-steps in thousandths.
    """
    if month and not _MONTH.fullmatch(month):
        raise InvalidArgument(f"{month!r} is no month, such as 2026-11.", field="month")
    if as_json and as_csv:
        raise InvalidArgument("Give --json or --csv, not both.", field="csv")

    async def read(engine: AsyncEngine) -> Sequence[Spell]:
        found = await TenantRepository(engine).tenant(tenant)
        if found is None:
            raise NotFound(f"The tenant {tenant!r} does not exist.")
        zone = zone_of(found.time_zone)
        asked = month or f"{datetime.now(UTC).astimezone(zone):%Y-%m}"
        start, end = month_bounds(int(asked[:4]), int(asked[5:]), zone)
        return await spells(UsageReports(engine, flush=_nothing), tenant, start=start, end=end)

    billed = with_engine(read)
    rows = [row for spell in billed for row in _rows(spell)]
    if as_csv:
        sys.stdout.write(csv_lines([_COLUMNS, *rows]).decode())
        return
    records: list[Record] = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
    show_list(records, as_json=as_json, empty="No usage.")
    if not as_json:
        typer.echo(f"sum: {sum((spell.totals.cost for spell in billed), Decimal()):f}")


async def _nothing() -> None:
    """The spool belongs to the gateway's process; it writes it out itself."""


_Row = tuple[str, str, str, str, int | None, Decimal | None, Decimal]


def _rows(spell: Spell) -> list[_Row]:
    """A row for each charge, and one for what is left: they add up to the cost."""
    named = (spell.model, spell.start.isoformat(), spell.end.isoformat())
    rows: list[_Row] = [
        (*named, line.unit, line.count, line.unit_price, line.amount) for line in spell.charges
    ]
    if spell.rounding or not rows:
        # What is free has one row, too: its requests.
        unit, count = ("rounding", None) if rows else ("request", spell.totals.requests)
        rows.append((*named, unit, count, None, spell.rounding))
    return rows
