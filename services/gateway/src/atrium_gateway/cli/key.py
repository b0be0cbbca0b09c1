"""`atrium key`: create, list, rotate, revoke."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from atrium_common.errors import NotFound
from atrium_gateway.auth.keys import NewKey, key_id_of, make_key, renew_key
from atrium_gateway.auth.principal import ANY_SCOPE
from atrium_gateway.auth.terms import KeyTerms, read_terms
from atrium_gateway.cli.output import Json, Record, show, show_list
from atrium_gateway.cli.session import with_tenants
from atrium_gateway.cli.tenant import TenantId, create_tenant, new_tenant
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.tenants.domain import ApiKey
from atrium_gateway.tenants.repository import TenantRepository

app = typer.Typer(no_args_is_help=True)

KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="Id of the key, or the key.")]
Days = Annotated[float | None, typer.Option(min=0.0001, help="Days until it expires.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        help="Capability, action or area that it allows, e.g. chat, usage:read or keys; "
        "repeat. All if not given.",
    ),
]
Roles = Annotated[
    list[str] | None,
    typer.Option(
        "--role", help="owner, admin, developer, viewer or operator; repeat. None if not given."
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="Model that it may use, by id or alias; repeat. All if none."),
]
Networks = Annotated[
    list[str] | None,
    typer.Option("--network", help="Network it may be used from, e.g. 10.1.0.0/16; repeat."),
]


@app.command()
def create(
    tenant: TenantId,
    name: Annotated[str, typer.Option(help="Name for people.")] = "",
    days: Days = None,
    scope: Scopes = None,
    role: Roles = None,
    model: Models = None,
    network: Networks = None,
    unlimited_tenant: Annotated[
        bool,
        typer.Option(
            "--unlimited-tenant", help="Make the tenant first, without limits, unless there is one."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Creates a key and prints it alone on stdout, this once only."""
    terms = read_terms(
        scopes=scope or (ANY_SCOPE,), roles=role or (), models=model or (), networks=network or ()
    )
    made = make_key(GatewaySettings().resolved_key_pepper())
    kept = _api_key(made, tenant, name=name, days=days, terms=terms)

    async def store(tenants: TenantRepository) -> None:
        if unlimited_tenant:
            await create_tenant(tenants, new_tenant(tenant, unlimited=True), exist_ok=True)
        await tenants.create_key(kept)

    with_tenants(store)
    _tell(made, kept, as_json=as_json)


@app.command("list")
def list_(tenant: TenantId, as_json: Json = False) -> None:
    """Lists the keys of a tenant, without their secrets."""
    found = with_tenants(lambda tenants: tenants.list_keys(tenant))
    show_list([_record(key) for key in found], as_json=as_json, empty="There are no keys.")


@app.command()
def rotate(
    key: KeyId,
    grace_hours: Annotated[
        float, typer.Option(min=0, max=8784, help="Hours that the old secret still holds.")
    ] = 24.0,
    as_json: Json = False,
) -> None:
    """Gives a key a new secret and prints it alone on stdout, this once only."""
    key_id = key_id_of(key) or key
    made = renew_key(key_id, GatewaySettings().resolved_key_pepper())
    if made is None:
        raise NotFound(f"The key {key_id!r} does not exist.")
    grace = timedelta(hours=grace_hours)
    kept = with_tenants(
        lambda tenants: tenants.rotate_key(
            key_id, digest=made.digest, now=datetime.now(UTC), grace=grace
        )
    )
    _tell(made, kept, as_json=as_json)


@app.command()
def revoke(key: KeyId) -> None:
    """Revokes a key for good, within a second; tokens that were minted with it end, too."""
    key_id = key_id_of(key) or key
    with_tenants(lambda tenants: tenants.revoke_key(key_id, now=datetime.now(UTC)))
    typer.echo(f"{key_id} is revoked")


def _api_key(
    made: NewKey, tenant: str, *, name: str, days: float | None, terms: KeyTerms
) -> ApiKey:
    now = datetime.now(UTC)
    return ApiKey(
        id=made.id,
        tenant=tenant,
        name=name[:200],
        digest=made.digest,
        scopes=terms.scopes,
        roles=terms.roles,
        models=terms.models,
        networks=terms.networks,
        created_at=now,
        expires_at=None if days is None else now + timedelta(days=days),
        revoked_at=None,
    )


def _tell(made: NewKey, kept: ApiKey, *, as_json: bool) -> None:
    if as_json:
        show({"key": made.text, **_record(kept)}, as_json=True)
        return
    typer.echo(made.text)
    typer.echo(f"Key {made.id} of {kept.tenant}. Keep it: it can't be shown again.", err=True)


def _record(key: ApiKey) -> Record:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "roles": sorted(key.roles),
        "models": sorted(key.models),
        "networks": key.networks,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
        "old_secret_until": key.previous_until,
    }
