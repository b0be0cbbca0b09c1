"""What each role may do, in one table; principals ask it, endpoints name the actions.

A credential may do what one of its roles grants and its scopes cover. One without a role
of this table is a plain caller: it works, sees its usage and mints narrow tokens. Only
`operator` reaches beyond its own tenant.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from atrium_common.domain import Capability

ANY_SCOPE = "*"
"""The scope that allows everything."""


class Role(StrEnum):
    """Roles that a key or a token may carry."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    VIEWER = "viewer"
    OPERATOR = "operator"


class Action(StrEnum):
    """What may be done beside working with models; the part before ``:`` is its area."""

    USAGE_READ = "usage:read"
    """See usage, events and statements."""
    LIMITS_READ = "limits:read"
    """See limits and what is left of them."""
    LIMITS_WRITE = "limits:write"
    """Set limits of keys and users, inside those of the tenant."""
    KEYS_READ = "keys:read"
    """See keys, never their secrets."""
    KEYS_WRITE = "keys:write"
    """Make, rotate and revoke keys."""
    TOKENS_WRITE = "tokens:write"
    """Mint short-lived tokens that allow no more than their maker."""
    TENANT_READ = "tenant:read"
    """See the tenant's own record."""
    TENANT_WRITE = "tenant:write"
    """Change the tenant's name, time zone and the like."""
    TENANT_DELETE = "tenant:delete"
    """Export and remove everything of the tenant."""
    AUDIT_READ = "audit:read"
    """See who changed what."""
    PRICES_READ = "prices:read"
    """See prices."""
    PRICES_WRITE = "prices:write"
    """Put prices in force."""
    TENANTS_READ = "tenants:read"
    """See all tenants."""
    TENANTS_WRITE = "tenants:write"
    """Make and block tenants; set their plans, weights and limits."""
    MODELS_WRITE = "models:write"
    """Load models into memory, and take them out of it."""


_WORK = frozenset(str(capability) for capability in Capability)
_SEE = frozenset({Action.USAGE_READ, Action.LIMITS_READ, Action.TENANT_READ, Action.PRICES_READ})
_PLAIN = _WORK | _SEE | {Action.TOKENS_WRITE}
_DEVELOP = _PLAIN | {Action.KEYS_READ}
_ADMINISTER = _DEVELOP | {
    Action.KEYS_WRITE,
    Action.LIMITS_WRITE,
    Action.TENANT_WRITE,
    Action.AUDIT_READ,
}

CLIENT_SCOPES = _WORK | _SEE
"""What a token for a browser may allow: to work and to see, never to change a record."""

GRANTS: Mapping[str, frozenset[str]] = {
    Role.VIEWER: _SEE,
    Role.DEVELOPER: _DEVELOP,
    Role.ADMIN: _ADMINISTER,
    Role.OWNER: _ADMINISTER | {Action.TENANT_DELETE},
    Role.OPERATOR: _WORK | frozenset(Action),
}
"""Actions and capabilities by role."""

_GIVES: Mapping[str, frozenset[str]] = {
    Role.ADMIN: frozenset({Role.ADMIN, Role.DEVELOPER, Role.VIEWER}),
    Role.OWNER: frozenset(Role) - {Role.OPERATOR},
    Role.OPERATOR: frozenset(Role),
}


def granted(roles: Iterable[str], action: str) -> bool:
    """Whether one of `roles` grants an action or a capability; unknown roles grant nothing."""
    known = False
    for role in roles:
        grants = GRANTS.get(role)
        if grants is not None:
            known = True
            if action in grants:
                return True
    return not known and action in _PLAIN


def covered(scopes: frozenset[str], action: str) -> bool:
    """Whether `scopes` cover an action by its name, its area or ``"*"``."""
    return action in scopes or ANY_SCOPE in scopes or action.partition(":")[0] in scopes


def may_give(roles: Iterable[str], asked: Iterable[str]) -> bool:
    """Whether a holder of `roles` may give another credential every one of `asked`.

    Nobody gives what is above them; a plain credential, without roles, is everyone's to give
    who may make keys.
    """
    own = frozenset().union(*(_GIVES.get(role, frozenset()) for role in roles))
    return own.issuperset(asked)
