"""The repository of tenants and keys whose every change is audited in the same transaction.

Endpoints and the CLI write through it alone; what runs without a person uses the plain one.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from atrium_common.errors import NotFound
from atrium_gateway.audit.domain import Action, Actor, AuditEntry, Facts
from atrium_gateway.audit.facts import (
    differing,
    key_facts,
    limit_facts,
    limit_name,
    limits_of,
    plan_facts,
    tenant_facts,
)
from atrium_gateway.audit.log import append
from atrium_gateway.database_scope import Database, Joined
from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.tenants.domain import TENANT_LEVEL, ApiKey, Fallback, Plan, Tenant
from atrium_gateway.tenants.repository import TenantRepository


@dataclass(slots=True)
class _Change:
    """A change that is being made: the repository in its transaction, and what is noted."""

    tenants: TenantRepository
    before: Facts | None = None
    after: Facts | None = None


class AuditedTenants(TenantRepository):
    """Reads as its base does, and notes who changed what. What its methods do, the base says.

    Args:
        database: All tenants, or one tenant's scope.
        by: Who asks.
        now: The time, aware UTC.
        new_id: Makes UUIDv7s.
    """

    def __init__(
        self,
        database: Database,
        *,
        by: Actor,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        super().__init__(database)
        self._by = by
        self._now = now
        self._new_id = new_id

    async def create_tenant(self, tenant: Tenant) -> None:
        """Adds a tenant with its own limits."""
        async with self._change(Action.TENANT_CREATE, tenant.id, tenant.id) as change:
            await change.tenants.create_tenant(tenant)
            change.after = tenant_facts(tenant)

    async def set_blocked(self, tenant_id: str, *, blocked: bool) -> None:
        """Blocks a tenant or lifts the block."""
        action = Action.TENANT_BLOCK if blocked else Action.TENANT_UNBLOCK
        await self.alter(tenant_id, lambda t: t.set_blocked(tenant_id, blocked=blocked), action)

    async def set_name(self, tenant_id: str, name: str) -> None:
        """Gives a tenant another name for people."""
        await self.alter(tenant_id, lambda tenants: tenants.set_name(tenant_id, name))

    async def set_share(self, tenant_id: str, *, weight: float, unlimited: bool) -> None:
        """Sets a tenant's share in fair scheduling, and whether limits bind it."""
        await self.alter(
            tenant_id,
            lambda tenants: tenants.set_share(tenant_id, weight=weight, unlimited=unlimited),
        )

    async def set_plan(self, tenant_id: str, plan_id: str | None) -> None:
        """Puts a tenant on a plan, or on none."""
        await self.alter(tenant_id, lambda tenants: tenants.set_plan(tenant_id, plan_id))

    async def set_time_zone(self, tenant_id: str, time_zone: str) -> None:
        """Says where a tenant's days and months begin."""
        await self.alter(tenant_id, lambda tenants: tenants.set_time_zone(tenant_id, time_zone))

    async def set_fallback(self, tenant_id: str, fallback: Fallback) -> None:
        """Says what becomes of a tenant's rate limits while the shared store is away."""
        await self.alter(tenant_id, lambda tenants: tenants.set_fallback(tenant_id, fallback))

    async def alter(
        self,
        tenant_id: str,
        work: Callable[[TenantRepository], Awaitable[None]],
        action: Action = Action.TENANT_CHANGE,
    ) -> None:
        """Makes several changes of one tenant's record at once, as one entry.

        Args:
            tenant_id: Whose record.
            work: Makes them, with the repository that it is given.
            action: What is done.

        Raises:
            NotFound: There is no such tenant.
        """
        async with self._change(action, tenant_id, tenant_id) as change:
            before = await _tenant(change.tenants, tenant_id)
            await work(change.tenants)
            after = await _tenant(change.tenants, tenant_id)
            change.before, change.after = differing(tenant_facts(before), tenant_facts(after))

    async def set_limit(self, tenant_id: str, limit: Limit, *, subject: str = TENANT_LEVEL) -> None:
        """Sets a limit of a tenant, a key or a user."""
        target = limit_name(limit, subject)
        async with self._change(Action.LIMIT_SET, tenant_id, target) as change:
            change.before = limits_of(await _tenant(change.tenants, tenant_id)).get(target)
            await change.tenants.set_limit(tenant_id, limit, subject=subject)
            change.after = limit_facts(limit)

    async def remove_limit(
        self,
        tenant_id: str,
        *,
        selector: str,
        unit: Unit,
        window: Window,
        subject: str = TENANT_LEVEL,
    ) -> None:
        """Removes a limit of a tenant, a key or a user."""
        target = limit_name(Limit(selector, unit, window, None), subject)
        async with self._change(Action.LIMIT_REMOVE, tenant_id, target) as change:
            change.before = limits_of(await _tenant(change.tenants, tenant_id)).get(target)
            await change.tenants.remove_limit(
                tenant_id, selector=selector, unit=unit, window=window, subject=subject
            )

    async def put_plan(self, plan_id: str, name: str) -> None:
        """Adds a plan, or renames it."""
        async with self._change(Action.PLAN_SET, None, plan_id) as change:
            found = await change.tenants.plan(plan_id)
            await change.tenants.put_plan(plan_id, name)
            change.before = {"name": found.name} if found else None
            change.after = {"name": name}

    async def replace_plan(self, plan: Plan) -> None:
        """Adds a plan, or puts it in the place of another."""
        async with self._change(Action.PLAN_SET, None, plan.id) as change:
            found = await change.tenants.plan(plan.id)
            await change.tenants.replace_plan(plan)
            change.before = plan_facts(found) if found else None
            change.after = plan_facts(plan)

    async def remove_plan(self, plan_id: str) -> None:
        """Removes a plan."""
        async with self._change(Action.PLAN_REMOVE, None, plan_id) as change:
            found = await change.tenants.plan(plan_id)
            await change.tenants.remove_plan(plan_id)
            change.before = plan_facts(found) if found else None

    async def set_plan_limit(self, plan_id: str, limit: Limit) -> None:
        """Sets a limit of a plan."""
        async with self._change(Action.LIMIT_SET, None, limit_name(limit, f"plan:{plan_id}")) as c:
            await c.tenants.set_plan_limit(plan_id, limit)
            c.after = limit_facts(limit)

    async def remove_plan_limit(
        self, plan_id: str, *, selector: str, unit: Unit, window: Window
    ) -> None:
        """Removes a limit of a plan."""
        target = limit_name(Limit(selector, unit, window, None), f"plan:{plan_id}")
        async with self._change(Action.LIMIT_REMOVE, None, target) as change:
            await change.tenants.remove_plan_limit(
                plan_id, selector=selector, unit=unit, window=window
            )

    async def create_key(self, key: ApiKey) -> None:
        """Adds a key."""
        async with self._change(Action.KEY_CREATE, key.tenant, key.id) as change:
            await change.tenants.create_key(key)
            change.after = key_facts(key)

    async def change_key(self, key: ApiKey) -> None:
        """Writes what of a key may change."""
        owner = await self._owner(key.id)
        async with self._change(Action.KEY_CHANGE, owner.tenant, key.id) as change:
            await change.tenants.change_key(key)
            change.before, change.after = differing(key_facts(owner), key_facts(key))

    async def rotate_key(
        self, key_id: str, *, digest: bytes, now: datetime, grace: timedelta
    ) -> ApiKey:
        """Gives a key another secret."""
        owner = await self._owner(key_id)
        async with self._change(Action.KEY_ROTATE, owner.tenant, key_id) as change:
            rotated = await change.tenants.rotate_key(key_id, digest=digest, now=now, grace=grace)
            change.before, change.after = differing(key_facts(owner), key_facts(rotated))
        return rotated

    async def revoke_key(self, key_id: str, *, now: datetime) -> None:
        """Revokes a key for good."""
        owner = await self._owner(key_id)
        async with self._change(Action.KEY_REVOKE, owner.tenant, key_id) as change:
            await change.tenants.revoke_key(key_id, now=now)
            found = await change.tenants.key(key_id)
            change.before, change.after = differing(key_facts(owner), key_facts(found or owner))

    async def _owner(self, key_id: str) -> ApiKey:
        key = await self.key(key_id)
        if key is None:
            raise NotFound(f"The key {key_id!r} does not exist.")
        return key

    @asynccontextmanager
    async def _change(
        self, action: Action, tenant: str | None, target: str
    ) -> AsyncIterator[_Change]:
        async with self._engine.begin() as connection:
            change = _Change(TenantRepository(Joined(connection)))
            yield change
            entry = AuditEntry(
                id=self._new_id(),
                at=self._now(),
                by=self._by,
                action=action,
                tenant=tenant,
                target=target,
                before=change.before,
                after=change.after,
            )
            await append(connection, entry)


async def _tenant(tenants: TenantRepository, tenant_id: str) -> Tenant:
    found = await tenants.tenant(tenant_id)
    if found is None:
        raise NotFound(f"The tenant {tenant_id!r} does not exist.")
    return found
