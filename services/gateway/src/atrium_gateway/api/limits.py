"""`/api/limits`: what holds and where it comes from; keys' and users' own ones are set here."""

from collections.abc import Sequence

import msgspec

from atrium_common.errors import InvalidArgument, NotFound
from atrium_gateway.api.decode import convert, decode
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.keys_schema import OfTenant
from atrium_gateway.api.limits_schema import (
    LimitKind,
    LimitList,
    LimitObject,
    LimitRequest,
    LimitsQuery,
)
from atrium_gateway.api.reach import Reach, reach
from atrium_gateway.api.usage_summary import shown
from atrium_gateway.auth.roles import Action
from atrium_gateway.quota.amounts import amount_text, read_amount
from atrium_gateway.quota.limits import ANY_CAPABILITY, MODEL_PREFIX, Limit, Unit, Window
from atrium_gateway.standing import LimitStanding
from atrium_gateway.tenants.domain import KEY_LEVEL, TENANT_LEVEL, USER_LEVEL, Tenant

_ENCODER = msgspec.json.Encoder()
_MOST_STANDING = 64
"""Limits of which it is told how they stand; each may be a question to the ledger."""


async def show_limits(exchange: Exchange) -> None:
    """Shows every limit that holds for a tenant, and for a key or a user of it."""
    query = convert(dict(exchange.query_params), LimitsQuery)
    allowed = await reach(exchange, Action.LIMITS_READ, tenant=query.tenant)
    await _answer(exchange, allowed, key=query.key, user=query.user)


async def set_limit(exchange: Exchange) -> None:
    """Sets a limit of a key, a user or, for operators, of the tenant."""
    query = convert(dict(exchange.query_params), OfTenant)
    allowed = await reach(exchange, Action.LIMITS_WRITE, tenant=query.tenant)
    asked = decode(await exchange.json_body(), LimitRequest)
    subject = _subject(allowed, key=asked.key, user=asked.user)
    unit = Unit(asked.unit)
    amount = None if asked.amount is None else read_amount(unit, str(asked.amount))
    selector = selector_of(asked.capability, asked.model)
    limit = Limit(selector, unit, Window(asked.window), amount)
    await allowed.tenants.set_limit(allowed.tenant, limit, subject=subject)
    await _answer(exchange, allowed, key=asked.key, user=asked.user)


async def remove_limit(exchange: Exchange) -> None:
    """Removes a limit of a key, a user or, for operators, of the tenant."""
    query = convert(dict(exchange.query_params), LimitKind)
    allowed = await reach(exchange, Action.LIMITS_WRITE, tenant=query.tenant)
    await allowed.tenants.remove_limit(
        allowed.tenant,
        selector=selector_of(query.capability, query.model),
        unit=Unit(query.unit),
        window=Window(query.window),
        subject=_subject(allowed, key=query.key, user=query.user),
    )
    await _answer(exchange, allowed, key=query.key, user=query.user)


async def _answer(exchange: Exchange, allowed: Reach, *, key: str | None, user: str | None) -> None:
    tenant = await allowed.tenants.tenant(allowed.tenant)
    if tenant is None:
        raise NotFound("There is no such tenant.", reason="TENANT_NOT_FOUND")
    wanted = {KEY_LEVEL + key} if key else set()
    wanted |= {USER_LEVEL + user} if user else set()
    scoped = [
        (subject, limit)
        for subject, limits in tenant.scoped.items()
        for limit in limits
        if not wanted or subject in wanted
    ]
    found = (*exchange.gateway.administration.policy.effective(tenant), *scoped)
    answer = LimitList(
        tenant=tenant.id,
        plan=tenant.plan,
        unlimited=tenant.unlimited,
        limits=[
            _object(source, limit, standing)
            for (source, limit), standing in zip(
                found, await _standings(exchange, tenant, found), strict=True
            )
        ],
    )
    await exchange.reply(_ENCODER.encode(answer))


async def _standings(
    exchange: Exchange, tenant: Tenant, limits: Sequence[tuple[str, Limit]]
) -> Sequence[LimitStanding | None]:
    """How limits stand; ``None`` for one that is lifted, and for all if they are many."""
    if len(limits) > _MOST_STANDING:
        return [None] * len(limits)
    policy = exchange.gateway.administration.policy
    meters = {
        at: policy.meter(tenant, source, limit)
        for at, (source, limit) in enumerate(limits)
        if limit.amount is not None
    }
    told = await exchange.gateway.standing.of(tenant.id, tuple(meters.values()))
    standings = dict(zip(meters, told, strict=True))
    return [standings.get(at) for at in range(len(limits))]


def _subject(allowed: Reach, *, key: str | None, user: str | None) -> str:
    """Whose limit is meant; the tenant's own is for operators to set.

    Raises:
        InvalidArgument: Both a key and a user are named.
        PermissionDenied: Neither is, and the caller is no operator.
    """
    if key and user:
        raise InvalidArgument("A limit is a key's or a user's; name one.", field="user")
    if key:
        return KEY_LEVEL + key
    if user:
        return USER_LEVEL + user
    allowed.principal.demand(Action.TENANTS_WRITE)
    return TENANT_LEVEL


def selector_of(capability: str | None, model: str | None) -> str:
    """What a limit binds; everything, if neither is named.

    Raises:
        InvalidArgument: Both are.
    """
    if capability and model:
        raise InvalidArgument("A limit binds a capability or a model; name one.", field="model")
    return MODEL_PREFIX + model if model else capability or ANY_CAPABILITY


def _object(source: str, limit: Limit, standing: LimitStanding | None) -> LimitObject:
    show = shown(limit.unit)
    used, remaining = (standing.used, standing.remaining) if standing else (None, None)
    by_model = limit.selector.startswith(MODEL_PREFIX)
    amount: int | str | None = limit.amount
    if limit.amount is not None and limit.unit is Unit.COST:
        amount = amount_text(limit.unit, limit.amount)
    return LimitObject(
        source=source,
        capability=None if by_model else limit.selector,
        model=limit.selector.removeprefix(MODEL_PREFIX) if by_model else None,
        unit=limit.unit.value,
        window=limit.window.value,
        amount=amount,
        used=None if used is None else show(used),
        remaining=None if remaining is None else show(remaining),
        resets_at=standing.resets if standing else None,
    )
