"""Picks the limits that apply to a request; admission asks it once per request."""

from atrium_gateway.quota.limits import ANY_CAPABILITY, Limit, Meter, Unit, Window
from atrium_gateway.tenants.domain import Tenant


class LimitPolicy:
    """The default limit, overridden by a tenant's own.

    A tenant's limit replaces the default where unit and window are the same and it
    binds the capability or all capabilities. Limits of different units or windows add
    up: all of them must hold.

    Args:
        default_amount: Requests per tenant, capability and window; ``None`` for none.
        default_window: Window of the default.
    """

    def __init__(self, *, default_amount: int | None, default_window: Window) -> None:
        self._default_amount = default_amount
        self._default_window = default_window
        self._meters: dict[tuple[str, str], tuple[Tenant, tuple[Meter, ...]]] = {}

    def limits(self, tenant: Tenant, capability: str) -> tuple[Limit, ...]:
        """The limits that bind `capability` of `tenant`, none for an unlimited tenant."""
        if tenant.unlimited:
            return ()
        own = [x for x in tenant.limits if x.capability in (capability, ANY_CAPABILITY)]
        replaced = any(x.unit is Unit.REQUESTS and x.window is self._default_window for x in own)
        if self._default_amount is not None and not replaced:
            own.append(Limit(capability, Unit.REQUESTS, self._default_window, self._default_amount))
        return tuple(limit for limit in own if limit.amount is not None)

    def meters(self, tenant: Tenant, capability: str) -> tuple[Meter, ...]:
        """The same, bound to counters; kept until the tenant's record changes."""
        kept = self._meters.get((tenant.id, capability))
        if kept is not None and kept[0] is tenant:
            return kept[1]
        meters = tuple(_meter(tenant.id, limit) for limit in self.limits(tenant, capability))
        self._meters[tenant.id, capability] = (tenant, meters)
        return meters


def _meter(tenant: str, limit: Limit) -> Meter:
    scope = f"tenant:{tenant}"
    if limit.capability != ANY_CAPABILITY:
        scope += f" capability:{limit.capability}"
    amount = limit.amount or 0
    return Meter(
        key=f"{tenant}:{limit.capability}:{limit.unit}:{limit.window}",
        capability=limit.capability,
        unit=limit.unit,
        window=limit.window,
        limit=amount * limit.unit.scale,
        scale=limit.unit.scale,
        scope=scope,
    )
