"""`atrium key`: create, list, revoke, and the development key of `make run`."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from atrium_common.errors import Conflict
from atrium_gateway.auth.keys import NewKey, digest_key, key_id_of, make_key
from atrium_gateway.auth.principal import ANY_SCOPE
from atrium_gateway.cli.output import Json, Record, show, show_list
from atrium_gateway.cli.session import with_tenants
from atrium_gateway.cli.tenant import TenantId
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.tenants.domain import DEVELOPMENT_TENANT, ApiKey, Tenant
from atrium_gateway.tenants.repository import TenantRepository

app = typer.Typer(no_args_is_help=True)

Days = Annotated[float | None, typer.Option(min=0.0001, help="Days until it expires.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", help="Capability that it allows; repeat. All if not given."),
]


@app.command()
def create(
    tenant: TenantId,
    name: Annotated[str, typer.Option(help="Name for people.")] = "",
    days: Days = None,
    scope: Scopes = None,
    as_json: Json = False,
) -> None:
    """Creates a key and prints it, this once only."""
    made = make_key(GatewaySettings().resolved_key_pepper())
    kept = _api_key(made, tenant, name=name, days=days, scopes=frozenset(scope or (ANY_SCOPE,)))
    with_tenants(lambda tenants: tenants.create_key(kept))
    show({"key": made.text, **_record(kept)}, as_json=as_json)
    if not as_json:
        typer.echo("Keep the key: it can't be shown again.", err=True)


@app.command("list")
def list_(tenant: TenantId, as_json: Json = False) -> None:
    """Lists the keys of a tenant, without their secrets."""
    found = with_tenants(lambda tenants: tenants.list_keys(tenant))
    show_list([_record(key) for key in found], as_json=as_json, empty="There are no keys.")


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY_ID", help="Id of the key, or the key.")],
) -> None:
    """Revokes a key for good, within a second."""
    key_id = key_id_of(key) or key
    with_tenants(lambda tenants: tenants.revoke_key(key_id, now=datetime.now(UTC)))
    typer.echo(f"{key_id} is revoked")


@app.command()
def development(
    file: Annotated[Path, typer.Option(help="File that holds the key; made readable to you.")],
) -> None:
    """Makes sure that the development tenant and a key in `file` exist."""
    pepper = GatewaySettings().resolved_key_pepper()
    present = file.read_text().strip() if file.exists() else ""
    text = with_tenants(lambda tenants: _development_key(tenants, present, pepper))
    if text != present:
        _write_private(file, text)
    typer.echo(str(file))


async def _development_key(tenants: TenantRepository, present: str, pepper: bytes) -> str:
    """The key that is `present` if it holds, else a new one."""
    if await tenants.tenant(DEVELOPMENT_TENANT) is None:
        try:
            await tenants.create_tenant(_development_tenant())
        except Conflict:
            typer.echo("another process made the development tenant", err=True)
    key_id = key_id_of(present)
    kept = await tenants.key(key_id) if key_id else None
    if kept and kept.revoked_at is None and kept.digest == digest_key(present, pepper):
        return present
    made = make_key(pepper)
    await tenants.create_key(_api_key(made, DEVELOPMENT_TENANT, name="development"))
    return made.text


def _development_tenant() -> Tenant:
    return Tenant(
        id=DEVELOPMENT_TENANT,
        name="Development",
        blocked=False,
        unlimited=True,
        weight=1.0,
        limits=(),
        created_at=datetime.now(UTC),
    )


def _write_private(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text + "\n")
    draft.replace(file)


def _api_key(
    made: NewKey,
    tenant: str,
    *,
    name: str,
    days: float | None = None,
    scopes: frozenset[str] = frozenset({ANY_SCOPE}),
) -> ApiKey:
    now = datetime.now(UTC)
    return ApiKey(
        id=made.id,
        tenant=tenant,
        name=name[:200],
        digest=made.digest,
        scopes=scopes,
        roles=frozenset(),
        created_at=now,
        expires_at=None if days is None else now + timedelta(days=days),
        revoked_at=None,
    )


def _record(key: ApiKey) -> Record:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }
