"""Tenant isolation of the suite's endpoints: whose records a request means, and who may.

The one place where that is decided: an endpoint of administration takes what it reads and
writes from a `Reach`, which holds no other tenant's records.
"""

from dataclasses import dataclass

from atrium_common.errors import NotFound, PermissionDenied
from atrium_gateway.administration.prices import PriceDesk
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.names import is_tenant_id
from atrium_gateway.audit.domain import Actor
from atrium_gateway.audit.log import AuditLog
from atrium_gateway.audit.tenants import AuditedTenants
from atrium_gateway.auth.principal import Principal
from atrium_gateway.auth.roles import Role

_MAX_SUBJECT = 200
_MAX_REQUEST_ID = 128


@dataclass(frozen=True, slots=True)
class Reach:
    """What a request may touch.

    Attributes:
        principal: Who asks.
        by: The same, for the audit log.
        tenant: Whose records.
        tenants: These records, to read and to change.
        log: The audit entries about them.
        prices: The price book of the installation, for those who may change it.
    """

    principal: Principal
    by: Actor
    tenant: str
    tenants: AuditedTenants
    log: AuditLog
    prices: PriceDesk


async def reach(exchange: Exchange, action: str, *, tenant: str | None = None) -> Reach:
    """Authenticates, and opens the records of one tenant.

    Args:
        exchange: The request.
        action: What is to be done, a value of `auth.roles.Action`.
        tenant: Whose records; the caller's own if not given.

    Raises:
        Unauthenticated: No credential, or it does not hold.
        PermissionDenied: The records are another tenant's and the caller is no operator;
            or neither role nor scope of the credential allows the action.
        NotFound: `tenant` can be no tenant's id.
    """
    principal = await exchange.authenticate()
    whose = principal.tenant if tenant is None else tenant
    principal.demand(action, tenant=whose)
    if not is_tenant_id(whose):
        raise NotFound("There is no such tenant.", reason="TENANT_NOT_FOUND")
    desk = exchange.gateway.administration
    by = _actor(exchange, principal)
    return Reach(
        principal, by, whose, desk.tenants(by, scope=whose), desk.log(scope=whose), desk.prices(by)
    )


async def reach_all(exchange: Exchange, action: str) -> Reach:
    """Authenticates an operator, and opens the records of all tenants.

    Raises:
        Unauthenticated: No credential, or it does not hold.
        PermissionDenied: The caller is no operator, or its scopes do not cover the action.
    """
    principal = await exchange.authenticate()
    principal.demand(action)
    if Role.OPERATOR not in principal.roles:
        raise PermissionDenied("Only operators reach all tenants.", reason="ROLE_MISSING")
    desk = exchange.gateway.administration
    by = _actor(exchange, principal)
    return Reach(
        principal,
        by,
        principal.tenant,
        desk.tenants(by, scope=None),
        desk.log(scope=None),
        desk.prices(by),
    )


def _actor(exchange: Exchange, principal: Principal) -> Actor:
    return Actor(
        subject=principal.subject[:_MAX_SUBJECT],
        tenant=principal.tenant,
        key_id=principal.key_id,
        request_id=exchange.record.request_id[:_MAX_REQUEST_ID],
    )
