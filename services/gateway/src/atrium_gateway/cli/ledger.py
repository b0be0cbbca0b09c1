"""`atrium usage export` and `atrium usage retain`: events leave as files, and old ones go."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_common.errors import InvalidArgument
from atrium_gateway.cli.output import Json, show
from atrium_gateway.cli.session import with_engine
from atrium_gateway.cli.tenant import TenantId
from atrium_gateway.cli.times import read_time
from atrium_gateway.usage.export import Format, export_events, write_events
from atrium_gateway.usage.retention import SHORTEST, Retained, Retention


def export(
    tenant: TenantId,
    start: Annotated[str, typer.Option(help="First time, ISO 8601 with a zone.")],
    end: Annotated[str, typer.Option(help="Time after the last; now if not given.")] = "",
    form: Annotated[
        Format, typer.Option("--format", help="JSON Lines, or CSV with a header.")
    ] = Format.JSONL,
    output: Annotated[
        Path | None, typer.Option(help="File to write; must not exist. Stdout if not given.")
    ] = None,
    provider_cost: Annotated[
        bool, typer.Option("--provider-cost", help="Tell what the work cost you, too.")
    ] = False,
) -> None:
    """Writes every event of a tenant, oldest first, as far as it is in the database.

    Events that `retain` deleted are only in the sums. A tenant that is gone can be
    exported like any other.
    """
    first, last = read_time(start, "start"), read_time(end, "end") if end else datetime.now(UTC)
    if last <= first:
        raise InvalidArgument("end must be after start.", field="end")

    async def copy(engine: AsyncEngine) -> int:
        lines = export_events(
            engine, tenant, start=first, end=last, with_provider_cost=provider_cost
        )
        if output is None:
            return await write_events(lines, sys.stdout.write, form=form)
        with output.open("x", encoding="utf-8", newline="") as file:
            return await write_events(lines, file.write, form=form)

    count = with_engine(copy)
    typer.echo(f"{count} events", err=True)


def retain(
    days: Annotated[
        int, typer.Option(min=SHORTEST.days, max=36_500, help="Keep events this young.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be deleted, and delete nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Deletes events that are older, of all tenants; their hourly sums stay.

    An event whose hour's sums lack anything is kept. Safe to repeat and to interrupt.
    """
    before = datetime.now(UTC) - timedelta(days=days)

    async def run(engine: AsyncEngine) -> Retained:
        return await Retention(engine).apply(before, dry_run=dry_run)

    done = with_engine(run)
    show({"before": before, "deleted": done.deleted, "kept": done.kept}, as_json=as_json)
