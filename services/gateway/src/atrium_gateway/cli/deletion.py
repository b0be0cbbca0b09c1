"""`atrium tenant delete` and `export`: the end of a tenant, and what it takes with it."""

import sys
from typing import Annotated

import typer

from atrium_common.errors import InvalidArgument
from atrium_common.tls import ClientTls
from atrium_gateway.administration.deletion import Deletion, TenantDeletion
from atrium_gateway.administration.desk import Administration
from atrium_gateway.administration.export import exported
from atrium_gateway.cli.output import Json, show
from atrium_gateway.cli.session import operator, with_administration
from atrium_gateway.cli.tenant import TenantId
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.upstreams.fleet import open_tts


def delete(
    tenant: TenantId,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it for good.")] = False,
    as_json: Json = False,
) -> None:
    """Exports a tenant, then removes all of it; its sums stay in the ledger, without a name.

    What is interrupted goes on when it is repeated.
    """
    if not yes:
        raise InvalidArgument(f"This deletes {tenant} for good; say so by --yes.", field="yes")
    settings = GatewaySettings()
    done = with_administration(lambda desk: _delete(desk, settings, tenant))
    show(
        {
            "tenant": done.tenant,
            "alias": done.alias,
            "export": str(settings.exports_dir / done.export_name),
            "finished_at": done.finished_at,
        },
        as_json=as_json,
    )


def export(tenant: TenantId) -> None:
    """Prints everything of a tenant as JSON Lines, keys without their secrets."""

    async def write(desk: Administration) -> None:
        async for line in exported(desk.engine, tenant):
            sys.stdout.write(line.decode())

    with_administration(write)


async def _delete(desk: Administration, settings: GatewaySettings, tenant: str) -> Deletion:
    if not settings.open_catalogue().for_service("tts"):
        return await TenantDeletion(desk, by=operator(), voices=None).delete(tenant)
    if settings.service_credential is None:
        raise InvalidArgument(
            "ATRIUM_SERVICE_CREDENTIAL is not set: the tenant's voices can't be deleted."
        )
    async with open_tts(
        settings.tts_target,
        service_credential=settings.service_credential.get_secret_value(),
        tls=_tls(settings),
    ) as tts:
        return await TenantDeletion(desk, by=operator(), voices=tts).delete(tenant)


def _tls(settings: GatewaySettings) -> ClientTls | None:
    if settings.tls_certificate is None and settings.tls_client_ca is None:
        return None
    return ClientTls(
        ca=settings.tls_client_ca, certificate=settings.tls_certificate, key=settings.tls_key
    )
