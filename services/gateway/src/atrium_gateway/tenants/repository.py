"""Reads and writes tenants, keys and limits; the CLI writes, the directory reads.

Every change adds one to the directory's version in the same transaction, by which a
running gateway notices it within a second.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Row, Select, insert, select, update
from sqlalchemy.exc import IntegrityError

from atrium_common.errors import Conflict
from atrium_gateway.quota.checks import check_time_zone
from atrium_gateway.quota.limits import Limit
from atrium_gateway.tenants.changes import changed
from atrium_gateway.tenants.domain import TENANT_LEVEL, Fallback, Tenant
from atrium_gateway.tenants.limits import (
    LimitRepository,
    expect_one,
    expect_plan,
    limits_of_plans,
    limits_of_tenants,
)
from atrium_gateway.tenants.tables import directory_version, tenant_deletions, tenants

_DECIDE_LIMITS: Final = frozenset({"plan", "time_zone", "unlimited"})
"""What brings other limits, or other windows, when it changes."""


class TenantRepository(LimitRepository):
    """Tenants, keys, plans and limits; `keys.py` and `limits.py` have the parts about these.

    Args:
        engine: The database, upgraded.
    """

    async def version(self) -> int:
        """Number of changes so far."""
        async with self._engine.connect() as connection:
            return await connection.scalar(select(directory_version.c.version)) or 0

    async def tenant(self, tenant_id: str) -> Tenant | None:
        """One tenant with its limits, or ``None``."""
        found = await self._tenants(select(tenants).where(tenants.c.id == tenant_id))
        return found[0] if found else None

    async def list_tenants(self, *, after: str = "", limit: int | None = None) -> Sequence[Tenant]:
        """Tenants by id.

        Args:
            after: Only those whose id is greater.
            limit: Most of them; all if not given.
        """
        query = select(tenants).where(tenants.c.id > after).order_by(tenants.c.id)
        return await self._tenants(query.limit(limit))

    async def create_tenant(self, tenant: Tenant) -> None:
        """Adds a tenant with its own limits.

        Raises:
            Conflict: The id is taken, or was a deleted tenant's.
            NotFound: There is no such plan.
            InvalidArgument: The time zone or a limit can't be.
        """
        check_time_zone(tenant.time_zone)
        try:
            async with self._engine.begin() as connection:
                await changed(connection)
                if tenant.plan is not None:
                    await expect_plan(connection, tenant.plan)
                if await connection.scalar(_deleted(tenant.id)):
                    raise Conflict(f"The tenant {tenant.id!r} was deleted; its id stays taken.")
                await connection.execute(
                    insert(tenants).values(
                        id=tenant.id,
                        name=tenant.name,
                        blocked=tenant.blocked,
                        unlimited=tenant.unlimited,
                        weight=tenant.weight,
                        created_at=tenant.created_at,
                        plan=tenant.plan,
                        time_zone=tenant.time_zone,
                        fallback=tenant.fallback.value,
                    )
                )
                for limit in tenant.limits:
                    await self._put_limit(connection, tenant.id, TENANT_LEVEL, limit, since=0)
        except IntegrityError as err:
            raise Conflict(f"The tenant {tenant.id!r} exists already.") from err

    async def set_blocked(self, tenant_id: str, *, blocked: bool) -> None:
        """Blocks a tenant or lifts the block.

        Raises:
            NotFound: There is no such tenant.
        """
        await self._set(tenant_id, blocked=blocked)

    async def set_plan(self, tenant_id: str, plan_id: str | None) -> None:
        """Puts a tenant on a plan, or on none: then the default limit holds.

        Raises:
            NotFound: There is no such tenant or plan.
        """
        await self._set(tenant_id, plan=plan_id)

    async def set_time_zone(self, tenant_id: str, time_zone: str) -> None:
        """Says where a tenant's days and months begin.

        Raises:
            NotFound: There is no such tenant.
            InvalidArgument: There is no such zone.
        """
        check_time_zone(time_zone)
        await self._set(tenant_id, time_zone=time_zone)

    async def set_fallback(self, tenant_id: str, fallback: Fallback) -> None:
        """Says what becomes of a tenant's rate limits while the shared store is away.

        Raises:
            NotFound: There is no such tenant.
        """
        await self._set(tenant_id, fallback=fallback.value)

    async def set_name(self, tenant_id: str, name: str) -> None:
        """Gives a tenant another name for people.

        Raises:
            NotFound: There is no such tenant.
        """
        await self._set(tenant_id, name=name)

    async def set_share(self, tenant_id: str, *, weight: float, unlimited: bool) -> None:
        """Sets a tenant's share in fair scheduling, and whether limits of it bind it.

        Raises:
            NotFound: There is no such tenant.
        """
        await self._set(tenant_id, weight=weight, unlimited=unlimited)

    async def _set(self, tenant_id: str, **values: str | float | bool | None) -> None:
        async with self._engine.begin() as connection:
            version = await changed(connection)
            plan = values.get("plan")
            if isinstance(plan, str):
                await expect_plan(connection, plan)
            if turned := _DECIDE_LIMITS & values.keys():
                known = select(*(tenants.c[name] for name in turned)).where(
                    tenants.c.id == tenant_id
                )
                row = (await connection.execute(known)).one_or_none()
                if row is not None and row != tuple(values[name] for name in turned):
                    values["limits_since"] = version
            done = await connection.execute(
                update(tenants).where(tenants.c.id == tenant_id).values(**values)
            )
            expect_one(done.rowcount, f"The tenant {tenant_id!r} does not exist.")

    async def _tenants(self, query: Select[tuple[object, ...]]) -> list[Tenant]:
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
            if not rows:
                return []
            scoped = await limits_of_tenants(connection, rows[0].id, rows[-1].id)
            planned = await limits_of_plans(connection, {row.plan for row in rows if row.plan})
        return [_tenant(row, scoped.get(row.id, {}), planned.get(row.plan, ())) for row in rows]


def _deleted(tenant_id: str) -> Select[tuple[str]]:
    return select(tenant_deletions.c.step).where(tenant_deletions.c.tenant == tenant_id)


def _tenant(
    row: Row[tuple[object, ...]],
    scoped: Mapping[str, tuple[Limit, ...]],
    planned: tuple[Limit, ...],
) -> Tenant:
    return Tenant(
        id=row.id,
        name=row.name,
        blocked=row.blocked,
        unlimited=row.unlimited,
        weight=row.weight,
        limits=scoped.get(TENANT_LEVEL, ()),
        created_at=row.created_at,
        plan=row.plan,
        plan_limits=planned,
        scoped={subject: limits for subject, limits in scoped.items() if subject != TENANT_LEVEL},
        time_zone=row.time_zone,
        fallback=Fallback(row.fallback),
        limits_since=row.limits_since,
    )
