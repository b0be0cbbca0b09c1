"""`/api/plans`: limits that many tenants have in common; for operators alone."""

import msgspec

from atrium_common.errors import InvalidArgument
from atrium_gateway.api.decode import convert, decode
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.limits import selector_of
from atrium_gateway.api.plans_schema import (
    PlanLimit,
    PlanLimitObject,
    PlanList,
    PlanNamed,
    PlanObject,
    PlanRemoved,
    PlanRequest,
)
from atrium_gateway.api.reach import reach_all
from atrium_gateway.auth.roles import Action
from atrium_gateway.quota.amounts import amount_text, read_amount
from atrium_gateway.quota.limits import (
    ANY_CAPABILITY,
    MODEL_PREFIX,
    Limit,
    Unit,
    Window,
)
from atrium_gateway.tenants.domain import Plan

_ENCODER = msgspec.json.Encoder()


async def list_plans(exchange: Exchange) -> None:
    """Lists all plans with their limits."""
    allowed = await reach_all(exchange, Action.TENANTS_READ)
    plans = await allowed.tenants.list_plans()
    await exchange.reply(_ENCODER.encode(PlanList([_object(plan) for plan in plans])))


async def put_plan(exchange: Exchange) -> None:
    """Makes a plan, or puts another in its place; tenants on it have its limits at once."""
    allowed = await reach_all(exchange, Action.TENANTS_WRITE)
    plan_id = _plan_id(exchange)
    asked = decode(await exchange.json_body(), PlanRequest)
    limits = tuple(_limit(each) for each in asked.limits)
    if len({(each.selector, each.unit, each.window) for each in limits}) < len(limits):
        raise InvalidArgument("Two limits are of the same kind.", field="limits")
    plan = Plan(id=plan_id, name=asked.name or plan_id, limits=limits)
    await allowed.tenants.replace_plan(plan)
    await exchange.reply(_ENCODER.encode(_object(plan)))


async def remove_plan(exchange: Exchange) -> None:
    """Removes a plan that no tenant is on."""
    allowed = await reach_all(exchange, Action.TENANTS_WRITE)
    plan_id = _plan_id(exchange)
    await allowed.tenants.remove_plan(plan_id)
    await exchange.reply(_ENCODER.encode(PlanRemoved(id=plan_id, deleted=True)))


def _plan_id(exchange: Exchange) -> str:
    return convert({"plan": exchange.path_params["plan"]}, PlanNamed).plan


def _limit(asked: PlanLimit) -> Limit:
    unit = Unit(asked.unit)
    return Limit(
        selector_of(asked.capability, asked.model),
        unit,
        Window(asked.window),
        read_amount(unit, str(asked.amount)),
    )


def _object(plan: Plan) -> PlanObject:
    return PlanObject(id=plan.id, name=plan.name, limits=[_shown(each) for each in plan.limits])


def _shown(limit: Limit) -> PlanLimitObject:
    by_model = limit.selector.startswith(MODEL_PREFIX)
    amount: int | str = limit.amount or 0  # a plan's limit always has one
    if limit.unit is Unit.COST:
        amount = amount_text(limit.unit, limit.amount or 0)
    return PlanLimitObject(
        unit=limit.unit.value,
        window=limit.window.value,
        amount=amount,
        capability=None if by_model or limit.selector == ANY_CAPABILITY else limit.selector,
        model=limit.selector.removeprefix(MODEL_PREFIX) if by_model else None,
    )
