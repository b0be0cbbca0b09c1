"""`atrium tenant`: create, list, show, block, unblock, limit."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from atrium_common.domain import Capability
from atrium_common.errors import Conflict, InvalidArgument, NotFound
from atrium_gateway.cli.output import Cell, Json, Record, show, show_list
from atrium_gateway.cli.session import check_tenant_id, with_tenants
from atrium_gateway.quota.limits import ANY_CAPABILITY, Limit, Unit, Window
from atrium_gateway.tenants.domain import Tenant
from atrium_gateway.tenants.repository import TenantRepository

app = typer.Typer(no_args_is_help=True)

TenantId = Annotated[str, typer.Argument(metavar="TENANT", help="Id of the tenant.")]
_NO_LIMIT = "none"
_DEFAULT = "default"


@app.command()
def create(
    tenant: TenantId,
    name: Annotated[str, typer.Option(help="Name for people; the id if not given.")] = "",
    unlimited: Annotated[bool, typer.Option("--unlimited", help="No limit applies.")] = False,
    weight: Annotated[float, typer.Option(help="Share in fair scheduling, above 0.")] = 1.0,
    exist_ok: Annotated[
        bool, typer.Option("--exist-ok", help="Leave a tenant that exists as it is.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Creates a tenant."""
    if not 0 < weight <= 1000:
        raise InvalidArgument("weight must be above 0 and at most 1000.", field="weight")
    made = new_tenant(tenant, name=name, unlimited=unlimited, weight=weight)
    show(
        _record(with_tenants(lambda t: create_tenant(t, made, exist_ok=exist_ok))), as_json=as_json
    )


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Lists tenants."""
    found = with_tenants(lambda tenants: tenants.list_tenants())
    show_list([_record(tenant) for tenant in found], as_json=as_json, empty="There are no tenants.")


@app.command("show")
def show_(tenant: TenantId, as_json: Json = False) -> None:
    """Shows a tenant with its own limits."""
    show(_record(with_tenants(lambda tenants: _existing(tenants, tenant))), as_json=as_json)


@app.command()
def block(tenant: TenantId) -> None:
    """Refuses everything of a tenant, within a second."""
    with_tenants(lambda tenants: tenants.set_blocked(tenant, blocked=True))
    typer.echo(f"{tenant} is blocked")


@app.command()
def unblock(tenant: TenantId) -> None:
    """Serves a blocked tenant again."""
    with_tenants(lambda tenants: tenants.set_blocked(tenant, blocked=False))
    typer.echo(f"{tenant} is served")


@app.command()
def limit(
    tenant: TenantId,
    amount: Annotated[
        str,
        typer.Option(
            help="Whole units per window; 'none' lifts the default limit, 'default' "
            "removes the tenant's own one."
        ),
    ],
    unit: Annotated[Unit, typer.Option(help="What is counted.")] = Unit.REQUESTS,
    window: Annotated[Window, typer.Option(help="Over what time, UTC.")] = Window.HOUR,
    capability: Annotated[
        str, typer.Option(help="Capability that it binds; '*' counts all together.")
    ] = ANY_CAPABILITY,
    as_json: Json = False,
) -> None:
    """Sets a limit of a tenant; a limit of the same kind is replaced."""
    _check_kind(capability, unit, window)
    if amount == _DEFAULT:
        with_tenants(
            lambda tenants: tenants.remove_limit(
                tenant, capability=capability, unit=unit, window=window
            )
        )
    else:
        made = Limit(capability, unit, window, _amount(amount))
        with_tenants(lambda tenants: tenants.set_limit(tenant, made))
    show(_record(with_tenants(lambda tenants: _existing(tenants, tenant))), as_json=as_json)


def _check_kind(capability: str, unit: Unit, window: Window) -> None:
    known = [*(str(each) for each in Capability), ANY_CAPABILITY]
    if capability not in known:
        raise InvalidArgument(
            f"{capability!r} is no capability: {', '.join(known)}.", field="capability"
        )
    if window is Window.CONCURRENT and unit is not Unit.REQUESTS:
        raise InvalidArgument("concurrent counts requests only.", field="unit")


def _amount(text: str) -> int | None:
    if text == _NO_LIMIT:
        return None
    if not text.isdecimal() or int(text) > 2**53:
        raise InvalidArgument(
            f"{text!r} is no amount: a whole number, 'none' or 'default'.", field="amount"
        )
    return int(text)


def new_tenant(
    tenant: str, *, name: str = "", unlimited: bool = False, weight: float = 1.0
) -> Tenant:
    """A tenant as it is before it is stored.

    Raises:
        InvalidArgument: `tenant` is no tenant id.
    """
    return Tenant(
        id=check_tenant_id(tenant),
        name=(name or tenant)[:200],
        blocked=False,
        unlimited=unlimited,
        weight=weight,
        limits=(),
        created_at=datetime.now(UTC),
    )


async def create_tenant(tenants: TenantRepository, made: Tenant, *, exist_ok: bool) -> Tenant:
    """Stores a tenant, and returns it as it is stored.

    Raises:
        Conflict: There is one of that id, and not `exist_ok`.
    """
    try:
        await tenants.create_tenant(made)
    except Conflict:
        if not exist_ok:
            raise
    return await _existing(tenants, made.id)


async def _existing(tenants: TenantRepository, tenant_id: str) -> Tenant:
    tenant = await tenants.tenant(tenant_id)
    if tenant is None:
        raise NotFound(f"The tenant {tenant_id!r} does not exist.")
    return tenant


def _record(tenant: Tenant) -> Record:
    limits: Cell = [_words(limit) for limit in tenant.limits]
    return {
        "id": tenant.id,
        "name": tenant.name,
        "blocked": tenant.blocked,
        "unlimited": tenant.unlimited,
        "weight": tenant.weight,
        "limits": limits,
        "created_at": tenant.created_at,
    }


def _words(limit: Limit) -> str:
    amount = "no limit of" if limit.amount is None else str(limit.amount)
    return f"{limit.capability}: {amount} {limit.unit}/{limit.window}"
