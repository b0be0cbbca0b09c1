"""`atrium plan`: list, show, set, limit, remove."""

import re
from typing import Annotated

import typer

from atrium_common.errors import InvalidArgument, NotFound
from atrium_gateway.cli.limits import (
    CapabilityOption,
    ModelOption,
    UnitOption,
    WindowOption,
    limit_of,
    selector_of,
    words,
)
from atrium_gateway.cli.output import Json, Record, show, show_list
from atrium_gateway.cli.session import with_tenants
from atrium_gateway.quota.limits import ANY_CAPABILITY, Unit, Window
from atrium_gateway.tenants.domain import Plan
from atrium_gateway.tenants.repository import TenantRepository

app = typer.Typer(no_args_is_help=True)

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

PlanId = Annotated[str, typer.Argument(metavar="PLAN", help="Id of the plan.")]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Lists plans with their limits."""
    found = with_tenants(lambda tenants: tenants.list_plans())
    show_list([_record(plan) for plan in found], as_json=as_json, empty="There are no plans.")


@app.command("show")
def show_(plan: PlanId, as_json: Json = False) -> None:
    """Shows a plan with its limits."""
    show(_record(with_tenants(lambda tenants: _existing(tenants, plan))), as_json=as_json)


@app.command("set")
def set_(
    plan: PlanId,
    name: Annotated[str, typer.Option(help="Name for people; the id if not given.")] = "",
    as_json: Json = False,
) -> None:
    """Makes a plan without limits, or renames one."""
    if not _ID.fullmatch(plan):
        raise InvalidArgument(
            f"{plan!r} is no plan id: 1 to 64 of a-z, 0-9, - and _, starting with a letter or a "
            "digit.",
            field="plan",
        )

    async def put(tenants: TenantRepository) -> Plan:
        await tenants.put_plan(plan, (name or plan)[:200])
        return await _existing(tenants, plan)

    show(_record(with_tenants(put)), as_json=as_json)


@app.command()
def limit(
    plan: PlanId,
    amount: Annotated[
        str, typer.Option(help="Units per window; 'default' removes the limit from the plan.")
    ],
    unit: UnitOption = Unit.REQUESTS,
    window: WindowOption = Window.MINUTE,
    capability: CapabilityOption = ANY_CAPABILITY,
    model: ModelOption = "",
    as_json: Json = False,
) -> None:
    """Sets a limit for every tenant on a plan; a limit of the same kind is replaced."""
    selector = selector_of(capability, model)
    made = limit_of(selector, unit, window, amount)

    async def change(tenants: TenantRepository) -> Plan:
        if made is None:
            await tenants.remove_plan_limit(plan, selector=selector, unit=unit, window=window)
        else:
            await tenants.set_plan_limit(plan, made)
        return await _existing(tenants, plan)

    show(_record(with_tenants(change)), as_json=as_json)


@app.command()
def remove(plan: PlanId) -> None:
    """Removes a plan that no tenant is on."""
    with_tenants(lambda tenants: tenants.remove_plan(plan))
    typer.echo(f"{plan} is removed")


async def _existing(tenants: TenantRepository, plan_id: str) -> Plan:
    plan = await tenants.plan(plan_id)
    if plan is None:
        raise NotFound(f"The plan {plan_id!r} does not exist.")
    return plan


def _record(plan: Plan) -> Record:
    return {"id": plan.id, "name": plan.name, "limits": [words(limit) for limit in plan.limits]}
