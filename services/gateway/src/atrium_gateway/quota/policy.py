"""Picks the limits that apply to a request; admission asks it once per request.

The tree: a plan's limits, the tenant's own beside or in place of them, and below those
the key's and the user's, which count for themselves. All of them must hold.
"""

from collections.abc import Sequence
from typing import Final, Protocol
from urllib.parse import quote

from atrium_common.domain import Capability
from atrium_gateway.quota.limits import (
    ANY_CAPABILITY,
    LEDGERED,
    MODEL_PREFIX,
    UTC_ZONE,
    Limit,
    Meter,
    Unit,
    Window,
)
from atrium_gateway.tenants.domain import KEY_LEVEL, TENANT_LEVEL, USER_LEVEL, Tenant

_ZONED: Final = frozenset({Window.DAY, Window.MONTH})
_MOST_KEPT: Final = 20_000

Meters = tuple[Meter, ...]


class Requester(Protocol):
    """Who sends a request, as far as limits care; a `Principal` is one."""

    @property
    def key_id(self) -> str | None:
        """Id of the API key, or ``None`` for a token."""
        ...

    @property
    def subject(self) -> str:
        """User that a token stands for."""
        ...


class LimitPolicy:
    """The tree of limits, resolved for one request.

    A tenant's own limit takes the place of the plan's with the same selector, unit and
    window. Where a tenant has no plan, the default limit stands in for one: it counts
    each capability by itself, and the tenant's own of the same unit and window that binds
    the capability or all of them takes its place. Limits of keys and users add to these;
    they hold for a tenant without limits, too.

    Args:
        default_amount: Requests per capability and window of a tenant without a plan;
            ``None`` for none.
        default_window: Window of the default.
    """

    def __init__(self, *, default_amount: int | None, default_window: Window) -> None:
        self._default_amount = default_amount
        self._default_window = default_window
        self._kept: dict[tuple[str, ...], tuple[Tenant, Meters]] = {}
        self._known: dict[str, Tenant] = {}
        self.changed: dict[str, Tenant] = {}
        """Tenants whose records have changed since `late_limits.py` last saw to their running
        work, or were not known, by id."""

    def limits(self, tenant: Tenant, capability: str, model: str) -> tuple[Limit, ...]:
        """The limits of plan and tenant that bind a request; none for an unlimited tenant."""
        if tenant.unlimited:
            return ()
        own = _binding(tenant.limits, capability, model)
        replaced = {(limit.selector, limit.unit, limit.window) for limit in own}
        if tenant.plan is None:
            general = self._default(own, capability)
        else:
            general = _binding(tenant.plan_limits, capability, model)
        return tuple(
            limit
            for limit in (
                *own,
                *(x for x in general if (x.selector, x.unit, x.window) not in replaced),
            )
            if limit.amount is not None
        )

    def effective(self, tenant: Tenant) -> tuple[tuple[str, Limit], ...]:
        """All limits of plan and tenant that hold, whatever is asked for.

        Returns:
            Where each comes from, ``"tenant"``, ``"plan:<id>"`` or ``"default"``, and the
            limit. One without an amount lifts what it took the place of.
        """
        own = tuple((TENANT_LEVEL, limit) for limit in tenant.limits)
        if tenant.unlimited:
            return ()
        if tenant.plan is not None:
            replaced = {(limit.selector, limit.unit, limit.window) for limit in tenant.limits}
            source = f"plan:{tenant.plan}"
            return own + tuple(
                (source, limit)
                for limit in tenant.plan_limits
                if (limit.selector, limit.unit, limit.window) not in replaced
            )
        return own + tuple(
            ("default", limit)
            for capability in Capability
            for limit in self._default(_binding(tenant.limits, capability, ""), capability)
        )

    def meters(self, tenant: Tenant, principal: Requester, capability: str, model: str) -> Meters:
        """Every limit that binds a request, bound to its counter.

        Args:
            tenant: Whose request it is.
            principal: Who sends it: a key, a user or both.
            capability: What it asks for.
            model: Catalogue id of the model.

        Returns:
            The tenant's, then the key's, then the user's. They are kept until the
            tenant's record changes.
        """
        found = self._keep(tenant, (tenant.id, capability, model), capability, model, "")
        for subject in _subjects(principal):
            if subject in tenant.scoped:
                path = (tenant.id, capability, model, subject)
                found += self._keep(tenant, path, capability, model, subject)
        return found

    def notice(self, tenant: Tenant) -> None:
        """Finds out whether a tenant's record has changed; `meters` does so, too."""
        known = self._known.get(tenant.id)
        if known is tenant:
            return
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        self._known[tenant.id] = tenant
        if known != tenant:
            self.changed[tenant.id] = tenant

    def meter(self, tenant: Tenant, source: str, limit: Limit) -> Meter:
        """One limit bound to its counter.

        Args:
            tenant: Whose it is.
            source: As `effective` tells it, or the key or user that it binds.
            limit: The limit.
        """
        return _meter(tenant, limit, source if source in tenant.scoped else TENANT_LEVEL)

    def _keep(
        self, tenant: Tenant, path: tuple[str, ...], capability: str, model: str, subject: str
    ) -> Meters:
        kept = self._kept.get(path)
        if kept is not None and kept[0] is tenant:
            return kept[1]
        self.notice(tenant)
        if subject:
            limits: Sequence[Limit] = _binding(tenant.scoped[subject], capability, model)
        else:
            limits = self.limits(tenant, capability, model)
        meters = tuple(_meter(tenant, limit, subject or TENANT_LEVEL) for limit in limits)
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[path] = (tenant, meters)
        return meters

    def _default(self, own: Sequence[Limit], capability: str) -> Sequence[Limit]:
        replaced = any(
            x.unit is Unit.REQUESTS
            and x.window is self._default_window
            and x.selector in (capability, ANY_CAPABILITY)
            for x in own
        )
        if self._default_amount is None or replaced:
            return ()
        return (Limit(capability, Unit.REQUESTS, self._default_window, self._default_amount),)


def _subjects(principal: Requester) -> Sequence[str]:
    user = USER_LEVEL + principal.subject
    return (KEY_LEVEL + principal.key_id, user) if principal.key_id else (user,)


def _binding(limits: Sequence[Limit], capability: str, model: str) -> Sequence[Limit]:
    selectors = (capability, ANY_CAPABILITY, MODEL_PREFIX + model)
    return [limit for limit in limits if limit.selector in selectors]


def _meter(tenant: Tenant, limit: Limit, subject: str) -> Meter:
    """Binds a limit to its counter; `subject` is ``"tenant"``, ``"key:<id>"`` or ``"user:<id>"``.

    The counter of another time zone is another one: its window began at another time, and
    the ledger knows what was consumed since. So is that of a limit that was gone for a while,
    where the ledger can tell.
    """
    level, _, who = subject.partition(":")
    scope = f"{level}:{who or tenant.id}"
    by_model = limit.selector.startswith(MODEL_PREFIX)
    if by_model:
        scope += f" {limit.selector}"
    elif limit.selector != ANY_CAPABILITY:
        scope += f" capability:{limit.selector}"
    zone = tenant.time_zone if limit.window in _ZONED else UTC_ZONE
    # A subject may hold anything; a counter's key is one line of plain characters.
    parts = (tenant.id, level, quote(who, safe=""), quote(limit.selector, safe="*:"))
    since = max(limit.since, tenant.limits_since) if limit.window in LEDGERED else 0
    key = ":".join((*parts, limit.unit, limit.window, zone))
    return Meter(
        key=f"{key}@{since}" if since else key,
        capability=ANY_CAPABILITY if by_model else limit.selector,
        unit=limit.unit,
        window=limit.window,
        limit=(limit.amount or 0) * limit.unit.scale,
        scale=limit.unit.scale,
        scope=scope,
        name=f"{level}:{limit.selector}:{limit.unit}:{limit.window}",
        model=limit.selector.removeprefix(MODEL_PREFIX) if by_model else "",
        key_id=who if subject.startswith(KEY_LEVEL) else "",
        subject=who if subject.startswith(USER_LEVEL) else "",
        time_zone=zone,
    )
