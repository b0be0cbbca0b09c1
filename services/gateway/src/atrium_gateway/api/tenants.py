"""`/api/tenants`: made and changed by operators; a tenant's own admins see and rename theirs."""

import msgspec
from msgspec import UNSET

from atrium_common.errors import NotFound
from atrium_gateway.administration.deletion import Step, TenantDeletion
from atrium_gateway.administration.export import exported
from atrium_gateway.api.decode import convert, decode
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.reach import Reach, reach, reach_all
from atrium_gateway.api.tenants_schema import (
    TenantChange,
    TenantDeleted,
    TenantList,
    TenantObject,
    TenantRequest,
    TenantsQuery,
)
from atrium_gateway.auth.roles import Action
from atrium_gateway.database_scope import TenantScope
from atrium_gateway.tenants.domain import Fallback, Tenant
from atrium_gateway.tenants.repository import TenantRepository

_ENCODER = msgspec.json.Encoder()
JSON_LINES = "application/jsonl"


async def list_tenants(exchange: Exchange) -> None:
    """Lists all tenants by id, in pages."""
    allowed = await reach_all(exchange, Action.TENANTS_READ)
    query = convert(dict(exchange.query_params), TenantsQuery)
    found = await allowed.tenants.list_tenants(after=query.after or "", limit=query.limit + 1)
    page = found[: query.limit]
    answer = TenantList(
        [_object(tenant) for tenant in page], page[-1].id if len(found) > len(page) else None
    )
    await exchange.reply(_ENCODER.encode(answer))


async def create_tenant(exchange: Exchange) -> None:
    """Makes a tenant."""
    allowed = await reach_all(exchange, Action.TENANTS_WRITE)
    asked = decode(await exchange.json_body(), TenantRequest)
    tenant = Tenant(
        id=asked.id,
        name=asked.name or asked.id,
        blocked=False,
        unlimited=asked.unlimited,
        weight=asked.weight,
        limits=(),
        created_at=exchange.gateway.administration.now(),
        plan=asked.plan,
        time_zone=asked.time_zone,
        fallback=Fallback(asked.fallback),
    )
    await allowed.tenants.create_tenant(tenant)
    await exchange.reply(_ENCODER.encode(_object(tenant)), status=201)


async def show_tenant(exchange: Exchange) -> None:
    """Shows one tenant."""
    allowed = await reach(exchange, Action.TENANT_READ, tenant=exchange.path_params["tenant"])
    await exchange.reply(_ENCODER.encode(_object(await _existing(allowed))))


async def change_tenant(exchange: Exchange) -> None:
    """Changes a tenant; what only operators may change is refused to others."""
    allowed = await reach(exchange, Action.TENANT_WRITE, tenant=exchange.path_params["tenant"])
    asked = decode(await exchange.json_body(), TenantChange)
    terms = (asked.blocked, asked.plan, asked.weight, asked.unlimited, asked.fallback)
    if any(value is not UNSET for value in terms):
        allowed.principal.demand(Action.TENANTS_WRITE)
    tenant = await _existing(allowed)
    await allowed.tenants.alter(tenant.id, lambda tenants: _apply(tenants, tenant, asked))
    await exchange.reply(_ENCODER.encode(_object(await _existing(allowed))))


async def export_tenant(exchange: Exchange) -> None:
    """Sends everything of a tenant as JSON Lines, keys without their secrets."""
    allowed = await reach(exchange, Action.TENANT_DELETE, tenant=exchange.path_params["tenant"])
    tenant = await _existing(allowed)
    own = TenantScope(exchange.gateway.administration.engine, tenant.id)
    lines = exported(own, tenant.id)
    await exchange.start(content_type=JSON_LINES, headers={})
    async for line in lines:
        await exchange.write(line)
    await exchange.write(b"", last=True)


async def delete_tenant(exchange: Exchange) -> None:
    """Deletes a tenant for good; repeated, it goes on where it was interrupted."""
    tenant = exchange.path_params["tenant"]
    allowed = await reach(exchange, Action.TENANT_DELETE, tenant=tenant)
    gateway = exchange.gateway
    deletion = TenantDeletion(
        gateway.administration,
        by=allowed.by,
        voices=gateway.tts if gateway.catalogue.for_service("tts") else None,
    )
    done = await deletion.delete(tenant)
    answer = TenantDeleted(
        id=tenant,
        deleted=done.step is Step.REMOVED,
        alias=done.alias,
        export=done.export_name,
        finished_at=done.finished_at,
    )
    await exchange.reply(_ENCODER.encode(answer))


async def _apply(tenants: TenantRepository, tenant: Tenant, asked: TenantChange) -> None:
    if asked.name is not UNSET:
        await tenants.set_name(tenant.id, asked.name)
    if asked.time_zone is not UNSET:
        await tenants.set_time_zone(tenant.id, asked.time_zone)
    if asked.blocked is not UNSET:
        await tenants.set_blocked(tenant.id, blocked=asked.blocked)
    if asked.plan is not UNSET:
        await tenants.set_plan(tenant.id, asked.plan)
    if asked.fallback is not UNSET:
        await tenants.set_fallback(tenant.id, Fallback(asked.fallback))
    if asked.weight is not UNSET or asked.unlimited is not UNSET:
        await tenants.set_share(
            tenant.id,
            weight=tenant.weight if asked.weight is UNSET else asked.weight,
            unlimited=tenant.unlimited if asked.unlimited is UNSET else asked.unlimited,
        )


async def _existing(allowed: Reach) -> Tenant:
    tenant = await allowed.tenants.tenant(allowed.tenant)
    if tenant is None:
        raise NotFound("There is no such tenant.", reason="TENANT_NOT_FOUND")
    return tenant


def _object(tenant: Tenant) -> TenantObject:
    return TenantObject(
        id=tenant.id,
        name=tenant.name,
        blocked=tenant.blocked,
        unlimited=tenant.unlimited,
        weight=tenant.weight,
        plan=tenant.plan,
        time_zone=tenant.time_zone,
        fallback=tenant.fallback.value,
        created_at=tenant.created_at,
    )
