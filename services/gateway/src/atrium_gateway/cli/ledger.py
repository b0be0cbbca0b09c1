"""`atrium usage export`, `retain` and `late`: events leave as files, old ones go, or return."""

import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_common.errors import InvalidArgument
from atrium_gateway.administration.desk import Administration
from atrium_gateway.audit.domain import Action
from atrium_gateway.cli.output import Json, Record, show, show_list
from atrium_gateway.cli.session import operator, with_administration, with_engine
from atrium_gateway.cli.tenant import TenantId
from atrium_gateway.cli.times import read_time
from atrium_gateway.usage.export import Format, export_events, write_events
from atrium_gateway.usage.late import late_events
from atrium_gateway.usage.price import NANO
from atrium_gateway.usage.reports_calendar import moment_of
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

    An event whose hour's sums lack anything is kept. Safe to repeat and to interrupt. What
    a spool brings later of that time is not counted; `late` lists it.
    """
    before = datetime.now(UTC) - timedelta(days=days)

    async def run(desk: Administration) -> Retained:
        done = await Retention(desk.engine).apply(before, dry_run=dry_run)
        if not dry_run:
            counts = {"deleted": done.deleted, "kept": done.kept}
            await desk.note(operator(), Action.USAGE_RETAIN, before.isoformat(), counts)
        return done

    done = with_administration(run)
    show({"before": before, "deleted": done.deleted, "kept": done.kept}, as_json=as_json)


def late(as_json: Json = False) -> None:
    """Lists events that came after those of their time were deleted.

    They may have been counted before or not: they are not counted now.
    """

    async def read(engine: AsyncEngine) -> list[Record]:
        return [
            {
                "id": event.id,
                "tenant": event.tenant,
                "started_at": moment_of(event.started_ms),
                "user": event.subject,
                "model": event.model,
                "outcome": event.outcome,
                "cost": Decimal(event.cost_nano) / NANO,
            }
            for event in await late_events(engine)
        ]

    show_list(with_engine(read), as_json=as_json, empty="No event came late.")
