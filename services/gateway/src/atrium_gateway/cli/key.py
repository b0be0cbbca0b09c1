"""`atrium key`: create, list, revoke."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from atrium_gateway.auth.keys import NewKey, key_id_of, make_key
from atrium_gateway.auth.principal import ANY_SCOPE
from atrium_gateway.cli.output import Json, Record, show, show_list
from atrium_gateway.cli.session import with_tenants
from atrium_gateway.cli.tenant import TenantId, create_tenant, new_tenant
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.tenants.domain import ApiKey
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
    unlimited_tenant: Annotated[
        bool,
        typer.Option(
            "--unlimited-tenant", help="Make the tenant first, without limits, unless there is one."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Creates a key and prints it alone on stdout, this once only."""
    made = make_key(GatewaySettings().resolved_key_pepper())
    kept = _api_key(made, tenant, name=name, days=days, scopes=frozenset(scope or (ANY_SCOPE,)))

    async def store(tenants: TenantRepository) -> None:
        if unlimited_tenant:
            await create_tenant(tenants, new_tenant(tenant, unlimited=True), exist_ok=True)
        await tenants.create_key(kept)

    with_tenants(store)
    if as_json:
        show({"key": made.text, **_record(kept)}, as_json=True)
        return
    typer.echo(made.text)
    typer.echo(f"Key {made.id} of {tenant}. Keep it: it can't be shown again.", err=True)


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
