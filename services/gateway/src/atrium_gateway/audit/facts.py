"""What the audit log says of tenants, keys and limits: all that people may know of them."""

from collections.abc import Mapping

from atrium_gateway.audit.domain import Facts
from atrium_gateway.quota.limits import Limit
from atrium_gateway.tenants.domain import TENANT_LEVEL, ApiKey, Plan, Tenant


def tenant_facts(tenant: Tenant) -> Facts:
    """A tenant; its limits have entries of their own, but for those that it is made with."""
    return {
        "name": tenant.name,
        "blocked": tenant.blocked,
        "unlimited": tenant.unlimited,
        "weight": tenant.weight,
        "plan": tenant.plan,
        "time_zone": tenant.time_zone,
        "fallback": tenant.fallback.value,
        "limits": [f"{limit_name(limit)}={limit.amount}" for limit in tenant.limits],
    }


def key_facts(key: ApiKey) -> Facts:
    """A key without its digest: that is what a stolen log could be guessed against."""
    return {
        "name": key.name,
        "scopes": sorted(key.scopes),
        "roles": sorted(key.roles),
        "models": sorted(key.models),
        "networks": list(key.networks),
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
        "previous_until": key.previous_until.isoformat() if key.previous_until else None,
    }


def plan_facts(plan: Plan) -> Facts:
    """A plan with its limits."""
    subject = f"plan:{plan.id}"
    limits = [f"{limit_name(limit, subject)}={limit.amount}" for limit in plan.limits]
    return {"name": plan.name, "limits": limits}


def limit_name(limit: Limit, subject: str = TENANT_LEVEL) -> str:
    """Whose limit it is and what it counts, e.g. ``"tenant:chat:tokens:month"``."""
    return f"{subject}:{limit.selector}:{limit.unit}:{limit.window}"


def limit_facts(limit: Limit) -> Facts:
    """A limit's amount; ``None`` lifts the plan's or the default one."""
    return {"amount": limit.amount}


def limits_of(tenant: Tenant) -> Mapping[str, Facts]:
    """The limits of a tenant, its keys and users, by `limit_name`."""
    scoped = {TENANT_LEVEL: tenant.limits, **tenant.scoped}
    return {
        limit_name(limit, subject): limit_facts(limit)
        for subject, limits in scoped.items()
        for limit in limits
    }


def differing(before: Facts, after: Facts) -> tuple[Facts, Facts]:
    """Both without what they have in common."""
    names = [name for name in after if after[name] != before.get(name)]
    return {name: before[name] for name in names}, {name: after[name] for name in names}
