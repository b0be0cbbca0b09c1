"""`atrium usage`: what a tenant consumed, as far as it is in the database.

Its commands beside the one that shows it are in `ledger.py` and `statement.py`.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_common.errors import InvalidArgument, NotFound
from atrium_gateway.cli.group import DefaultsToShow
from atrium_gateway.cli.ledger import export, late, retain
from atrium_gateway.cli.output import Json, Record, show_list
from atrium_gateway.cli.session import with_engine
from atrium_gateway.cli.statement import statement
from atrium_gateway.cli.tenant import TenantId
from atrium_gateway.cli.times import read_time
from atrium_gateway.tenants.repository import TenantRepository
from atrium_gateway.usage.reports import Bucket, Filters, Group, UsageGroup, UsageReports
from atrium_gateway.usage.reports_calendar import zone_of
from atrium_gateway.usage.reports_csv import csv_lines

app = typer.Typer(cls=DefaultsToShow, no_args_is_help=True)
app.command()(export)
app.command()(retain)
app.command()(late)
app.command()(statement)

Some = list[str] | None
_ANY = "Only what is of it; repeat for any of several."


@app.command("show")
def usage(
    tenant: TenantId,
    hours: Annotated[int, typer.Option(min=1, max=87_600, help="How far back.")] = 24,
    start: Annotated[str, typer.Option(help="From when, ISO 8601, instead of --hours.")] = "",
    end: Annotated[str, typer.Option(help="Until when, ISO 8601; now if not given.")] = "",
    bucket: Annotated[
        Bucket | None, typer.Option("--bucket-width", help="Split by time; days are the tenant's.")
    ] = None,
    by: Annotated[
        list[Group] | None,
        typer.Option("--by", "--group-by", help="Split by it; repeat for several."),
    ] = None,
    capability: Annotated[Some, typer.Option(help=_ANY)] = None,
    model: Annotated[Some, typer.Option(help=_ANY)] = None,
    key: Annotated[Some, typer.Option(help=_ANY)] = None,
    user: Annotated[Some, typer.Option(help=_ANY)] = None,
    status: Annotated[Some, typer.Option(help=_ANY)] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most lines.")] = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of text.")] = False,
) -> None:
    """Shows what a tenant consumed; a running gateway's last second may be missing."""
    if as_json and as_csv:
        raise InvalidArgument("Give --json or --csv, not both.", field="csv")
    groups = [Group.CAPABILITY, Group.MODEL] if by is None else by
    last = read_time(end, "end") if end else datetime.now(UTC)
    first = read_time(start, "start") if start else last - timedelta(hours=hours)
    only = Filters(
        capability=tuple(capability or ()),
        model=tuple(model or ()),
        key=tuple(key or ()),
        user=tuple(user or ()),
        status=tuple(status or ()),
    )

    async def read(engine: AsyncEngine) -> Sequence[UsageGroup]:
        found = await TenantRepository(engine).tenant(tenant)
        if found is None:
            raise NotFound(f"The tenant {tenant!r} does not exist.")
        return await UsageReports(engine, flush=_nothing).groups(
            tenant,
            start=first,
            end=last,
            by=groups,
            bucket=bucket,
            zone=zone_of(found.time_zone),
            only=only,
            limit=limit,
        )

    records = [_record(group, groups) for group in with_engine(read)]
    if as_csv:
        _print_csv(records)
        return
    show_list(records, as_json=as_json, empty="No usage.")


async def _nothing() -> None:
    """The spool belongs to the gateway's process; it writes it out itself."""


def _print_csv(records: Sequence[Record]) -> None:
    if records:
        rows = [[_cell(value) for value in record.values()] for record in records]
        sys.stdout.write(csv_lines([list(records[0]), *rows]).decode())


def _cell(value: object) -> str | int | float | None:
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, int | float) else str(value)


def _record(group: UsageGroup, by: Sequence[Group]) -> Record:
    totals = group.totals
    named: Record = {
        **({"start": group.start} if group.start is not None else {}),
        **({"capability": group.capability} if Group.CAPABILITY in by else {}),
        **({"model": group.model} if Group.MODEL in by else {}),
        **({"key": group.key or None} if Group.KEY in by else {}),
        **({"user": group.user} if Group.USER in by else {}),
        **({"status": group.status} if Group.STATUS in by else {}),
    }
    return {
        **named,
        "requests": totals.requests,
        "refunded": totals.refunded,
        "input_tokens": totals.input_tokens,
        "output_tokens": totals.output_tokens,
        "audio_seconds": (totals.input_audio + totals.output_audio).total_seconds(),
        "characters": totals.characters,
        "images": totals.images,
        "megapixel_steps": totals.millimegapixel_steps / 1000,
        "pages": totals.pages,
        "inference_seconds": totals.inference_time.total_seconds(),
        "cost": totals.cost,
    }
