"""`atrium token`: mints a JSON web token for a tenant's user."""

import time
from datetime import timedelta
from typing import Annotated

import typer

from atrium_common.errors import NotFound
from atrium_gateway.auth.principal import ANY_SCOPE
from atrium_gateway.auth.tokens import TokenClaims
from atrium_gateway.cli.output import Json, show
from atrium_gateway.cli.session import with_tenants
from atrium_gateway.cli.tenant import TenantId
from atrium_gateway.core import token_authority
from atrium_gateway.settings import GatewaySettings

app = typer.Typer(no_args_is_help=True)


@app.callback()
def tokens() -> None:
    """Short-lived JSON web tokens."""


@app.command()
def create(
    tenant: TenantId,
    subject: Annotated[str, typer.Option(help="User that it stands for.")] = "operator",
    minutes: Annotated[float, typer.Option(min=0.1, max=527_040, help="Lifetime.")] = 60.0,
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="Capability that it allows; repeat. All if not given."),
    ] = None,
    role: Annotated[list[str] | None, typer.Option("--role", help="Role; repeat.")] = None,
    as_json: Json = False,
) -> None:
    """Creates a token and prints it."""
    if with_tenants(lambda tenants: tenants.tenant(tenant)) is None:
        raise NotFound(f"The tenant {tenant!r} does not exist.")
    claims = TokenClaims(
        tenant=tenant,
        subject=subject,
        lifetime=timedelta(minutes=minutes),
        scopes=frozenset(scope or (ANY_SCOPE,)),
        roles=frozenset(role or ()),
    )
    text = token_authority(GatewaySettings(), clock=time.time).mint(claims)
    if as_json:
        show({"token": text, "tenant": tenant, "subject": subject}, as_json=True)
    else:
        typer.echo(text)
