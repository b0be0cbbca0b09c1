"""Nobody hands out more than they have: what a credential may give to a key that it makes."""

from ipaddress import IPv4Network, IPv6Network

from atrium_common.errors import PermissionDenied
from atrium_gateway.auth.networks import Network, read_networks
from atrium_gateway.auth.principal import Principal
from atrium_gateway.auth.roles import covered, may_give
from atrium_gateway.tenants.domain import ApiKey


def check_gift(principal: Principal, key: ApiKey) -> None:
    """Checks that `principal` may make `key`, or be shown a new secret of it.

    Raises:
        PermissionDenied: The key would do more than its maker may.
    """
    check_roles(principal, key)
    for scope in sorted(key.scopes):
        if not covered(principal.scopes, scope):
            raise _above("scopes", scope)
    if principal.models is not None and not (key.models and key.models <= principal.models):
        raise _above("models", "it is for some models only, by their ids")
    if principal.networks and not _inside(read_networks(key.networks), principal.networks):
        raise _above("networks", "it is for some networks only")


def check_roles(principal: Principal, key: ApiKey) -> None:
    """Checks that `principal` may decide about a key of these roles.

    Raises:
        PermissionDenied: A role is above the caller's.
    """
    for role in sorted(key.roles):
        if not may_give(principal.roles, (role,)):
            raise _above("roles", role)


def _inside(asked: tuple[Network, ...], own: tuple[Network, ...]) -> bool:
    return bool(asked) and all(any(_part(each, of) for of in own) for each in asked)


def _part(network: Network, of: Network) -> bool:
    if isinstance(network, IPv4Network) and isinstance(of, IPv4Network):
        return network.subnet_of(of)
    if isinstance(network, IPv6Network) and isinstance(of, IPv6Network):
        return network.subnet_of(of)
    return False


def _above(field: str, what: str) -> PermissionDenied:
    return PermissionDenied(
        f"Your credential can't give more than it has: {what}.", reason="ABOVE_CALLER", field=field
    )
