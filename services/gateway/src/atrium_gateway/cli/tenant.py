"""`atrium tenant`: create, list, show, block, unblock, plan, time-zone, fallback, limit."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

import typer

from atrium_common.errors import Conflict, InvalidArgument, NotFound
from atrium_gateway.auth.keys import key_id_of
from atrium_gateway.cli.limits import (
    NO_LIMIT,
    CapabilityOption,
    ModelOption,
    UnitOption,
    WindowOption,
    limit_of,
    selector_of,
    words,
)
from atrium_gateway.cli.output import Json, Record, show, show_list
from atrium_gateway.cli.session import check_tenant_id, with_tenants
from atrium_gateway.quota.limits import ANY_CAPABILITY, UTC_ZONE, Unit, Window
from atrium_gateway.tenants.domain import (
    KEY_LEVEL,
    TENANT_LEVEL,
    USER_LEVEL,
    Fallback,
    Tenant,
)
from atrium_gateway.tenants.repository import TenantRepository

app = typer.Typer(no_args_is_help=True)

TenantId = Annotated[str, typer.Argument(metavar="TENANT", help="Id of the tenant.")]


@app.command()
def create(
    tenant: TenantId,
    name: Annotated[str, typer.Option(help="Name for people; the id if not given.")] = "",
    unlimited: Annotated[bool, typer.Option("--unlimited", help="No limit applies.")] = False,
    weight: Annotated[float, typer.Option(help="Share in fair scheduling, above 0.")] = 1.0,
    plan_id: Annotated[str, typer.Option("--plan", help="Id of its plan.")] = "",
    zone: Annotated[
        str,
        typer.Option("--time-zone", help="Where its days and months begin, e.g. Europe/Berlin."),
    ] = UTC_ZONE,
    exist_ok: Annotated[
        bool, typer.Option("--exist-ok", help="Leave a tenant that exists as it is.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Creates a tenant."""
    if not 0 < weight <= 1000:
        raise InvalidArgument("weight must be above 0 and at most 1000.", field="weight")
    made = replace(
        new_tenant(tenant, name=name, unlimited=unlimited, weight=weight),
        plan=plan_id or None,
        time_zone=zone,
    )
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
def plan(
    tenant: TenantId,
    plan_id: Annotated[
        str, typer.Argument(metavar="PLAN", help="Id of the plan; 'none' takes it off its plan.")
    ],
    as_json: Json = False,
) -> None:
    """Puts a tenant on a plan; what it used counts on."""
    wanted = None if plan_id == NO_LIMIT else plan_id
    _change(tenant, lambda tenants: tenants.set_plan(tenant, wanted), as_json=as_json)


@app.command()
def time_zone(
    tenant: TenantId,
    zone: Annotated[str, typer.Argument(metavar="ZONE", help="IANA name, e.g. Europe/Berlin.")],
    as_json: Json = False,
) -> None:
    """Says where a tenant's days and months begin."""
    _change(tenant, lambda tenants: tenants.set_time_zone(tenant, zone), as_json=as_json)


@app.command()
def fallback(
    tenant: TenantId,
    what: Annotated[Fallback, typer.Argument(metavar="local|refuse", help="What to do.")],
    as_json: Json = False,
) -> None:
    """Says what becomes of rate limits while the shared store is away: each gateway counts
    alone, or requests are refused."""
    _change(tenant, lambda tenants: tenants.set_fallback(tenant, what), as_json=as_json)


@app.command()
def limit(
    tenant: TenantId,
    amount: Annotated[
        str,
        typer.Option(
            help="Units per window, a cost in the price book's currency; 'none' lifts the "
            "plan's or the default limit, 'default' removes the limit."
        ),
    ],
    unit: UnitOption = Unit.REQUESTS,
    window: WindowOption = Window.HOUR,
    capability: CapabilityOption = ANY_CAPABILITY,
    model: ModelOption = "",
    key: Annotated[str, typer.Option("--key", help="Id of the key that it binds alone.")] = "",
    user: Annotated[str, typer.Option("--user", help="User that it binds alone.")] = "",
    as_json: Json = False,
) -> None:
    """Sets a limit of a tenant, a key or a user; a limit of the same kind is replaced."""
    selector, subject = selector_of(capability, model), _subject(key, user)
    made = limit_of(selector, unit, window, amount)

    async def change(tenants: TenantRepository) -> None:
        if made is None:
            await tenants.remove_limit(
                tenant, selector=selector, unit=unit, window=window, subject=subject
            )
        else:
            await tenants.set_limit(tenant, made, subject=subject)

    _change(tenant, change, as_json=as_json)


def _subject(key: str, user: str) -> str:
    if key and user:
        raise InvalidArgument("Give --key or --user.", field="user")
    if key:
        return KEY_LEVEL + (key_id_of(key) or key)
    return USER_LEVEL + user if user else TENANT_LEVEL


def _change(
    tenant: str, change: Callable[[TenantRepository], Awaitable[None]], *, as_json: bool
) -> None:
    async def work(tenants: TenantRepository) -> Tenant:
        await change(tenants)
        return await _existing(tenants, tenant)

    show(_record(with_tenants(work)), as_json=as_json)


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
    limits = [words(limit) for limit in tenant.limits]
    for subject, scoped in tenant.scoped.items():
        limits += [words(limit, subject) for limit in scoped]
    return {
        "id": tenant.id,
        "name": tenant.name,
        "blocked": tenant.blocked,
        "unlimited": tenant.unlimited,
        "weight": tenant.weight,
        "plan": tenant.plan,
        "time_zone": tenant.time_zone,
        "fallback": str(tenant.fallback),
        "plan_limits": [words(limit) for limit in tenant.plan_limits],
        "limits": limits,
        "created_at": tenant.created_at,
    }
