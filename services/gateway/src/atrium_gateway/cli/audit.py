"""`atrium audit`: who changed what."""

from typing import Annotated

import msgspec
import typer

from atrium_gateway.audit.domain import AuditEntry, Facts
from atrium_gateway.audit.log import AuditFilter
from atrium_gateway.cli.output import Json, Record, show_list
from atrium_gateway.cli.session import with_administration


def audit(
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, e.g. key.create.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Most entries.")] = 100,
    as_json: Json = False,
) -> None:
    """Lists who changed what, newest first."""
    wanted = AuditFilter(tenant=tenant, action=action)
    found = with_administration(lambda desk: desk.log(scope=None).entries(wanted, limit=limit))
    show_list([_record(entry) for entry in found], as_json=as_json, empty="There are no entries.")


def _record(entry: AuditEntry) -> Record:
    return {
        "at": entry.at,
        "actor": entry.by.subject,
        "action": entry.action.value,
        "tenant": entry.tenant,
        "target": entry.target,
        "before": _facts(entry.before),
        "after": _facts(entry.after),
    }


def _facts(facts: Facts | None) -> str | None:
    return None if facts is None else msgspec.json.encode(facts).decode()
