"""`atrium usage`: what a tenant consumed, as far as it is in the database.

Its commands beside the one that shows it are in `ledger.py`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_common.errors import NotFound
from atrium_gateway.cli.group import DefaultsToShow
from atrium_gateway.cli.ledger import export, retain
from atrium_gateway.cli.output import Json, Record, show_list
from atrium_gateway.cli.session import with_engine
from atrium_gateway.cli.tenant import TenantId
from atrium_gateway.tenants.repository import TenantRepository
from atrium_gateway.usage.reports import Group, UsageGroup, UsageReports

app = typer.Typer(cls=DefaultsToShow, no_args_is_help=True)
app.command()(export)
app.command()(retain)


@app.command("show")
def usage(
    tenant: TenantId,
    hours: Annotated[int, typer.Option(min=1, max=87_600, help="How far back.")] = 24,
    by: Annotated[
        list[Group] | None, typer.Option("--by", help="Split by it; repeat for several.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Shows what a tenant consumed; a running gateway's last second may be missing."""
    groups = [Group.CAPABILITY, Group.MODEL] if by is None else by
    now = datetime.now(UTC)

    async def read(engine: AsyncEngine) -> Sequence[UsageGroup]:
        if await TenantRepository(engine).tenant(tenant) is None:
            raise NotFound(f"The tenant {tenant!r} does not exist.")
        reports = UsageReports(engine, flush=_nothing)
        return await reports.groups(tenant, start=now - timedelta(hours=hours), end=now, by=groups)

    found = with_engine(read)
    show_list([_record(group, groups) for group in found], as_json=as_json, empty="No usage.")


async def _nothing() -> None:
    """The spool belongs to the gateway's process; it writes it out itself."""


def _record(group: UsageGroup, by: Sequence[Group]) -> Record:
    totals = group.totals
    named: Record = {
        **({"start": group.start} if group.start is not None else {}),
        **({"capability": group.capability} if Group.CAPABILITY in by else {}),
        **({"model": group.model} if Group.MODEL in by else {}),
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
