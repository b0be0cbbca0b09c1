"""Reads and writes tenants, keys and limits; the CLI writes, the directory reads.

Every change adds one to the directory's version in the same transaction, by which a
running gateway notices it within a second.
"""

from collections.abc import Sequence

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from atrium_common.errors import Conflict, NotFound
from atrium_gateway.database import upsert
from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.tenants.changes import changed
from atrium_gateway.tenants.domain import Tenant
from atrium_gateway.tenants.keys import KeyRepository
from atrium_gateway.tenants.tables import directory_version, tenant_limits, tenants


class TenantRepository(KeyRepository):
    """Tenants, keys and limits in the database; `keys.py` has the part about keys.

    Args:
        engine: The database, upgraded.
    """

    async def version(self) -> int:
        """Number of changes so far."""
        async with self._engine.connect() as connection:
            return await connection.scalar(select(directory_version.c.version)) or 0

    async def tenant(self, tenant_id: str) -> Tenant | None:
        """One tenant with its limits, or ``None``."""
        found = await self._tenants(tenant_id)
        return found[0] if found else None

    async def list_tenants(self) -> Sequence[Tenant]:
        """All tenants by id."""
        return await self._tenants(None)

    async def create_tenant(self, tenant: Tenant) -> None:
        """Adds a tenant with its limits.

        Raises:
            Conflict: The id is taken.
        """
        try:
            async with self._engine.begin() as connection:
                await connection.execute(
                    insert(tenants).values(
                        id=tenant.id,
                        name=tenant.name,
                        blocked=tenant.blocked,
                        unlimited=tenant.unlimited,
                        weight=tenant.weight,
                        created_at=tenant.created_at,
                    )
                )
                for limit in tenant.limits:
                    await self._put_limit(connection, tenant.id, limit)
                await changed(connection)
        except IntegrityError as err:
            raise Conflict(f"The tenant {tenant.id!r} exists already.") from err

    async def set_blocked(self, tenant_id: str, *, blocked: bool) -> None:
        """Blocks a tenant or lifts the block.

        Raises:
            NotFound: There is no such tenant.
        """
        async with self._engine.begin() as connection:
            done = await connection.execute(
                update(tenants).where(tenants.c.id == tenant_id).values(blocked=blocked)
            )
            _expect_one(done.rowcount, f"The tenant {tenant_id!r} does not exist.")
            await changed(connection)

    async def set_limit(self, tenant_id: str, limit: Limit) -> None:
        """Sets a limit of a tenant; replaces the one of the same kind.

        Raises:
            NotFound: There is no such tenant.
        """
        await self._existing(tenant_id)
        async with self._engine.begin() as connection:
            await self._put_limit(connection, tenant_id, limit)
            await changed(connection)

    async def remove_limit(
        self, tenant_id: str, *, capability: str, unit: Unit, window: Window
    ) -> None:
        """Removes a limit of a tenant, so that the default holds again.

        Raises:
            NotFound: There is no such limit.
        """
        async with self._engine.begin() as connection:
            done = await connection.execute(
                delete(tenant_limits).where(
                    tenant_limits.c.tenant == tenant_id,
                    tenant_limits.c.capability == capability,
                    tenant_limits.c.unit == unit.value,
                    tenant_limits.c.window == window.value,
                )
            )
            _expect_one(done.rowcount, f"The tenant {tenant_id!r} has no such limit.")
            await changed(connection)

    async def _existing(self, tenant_id: str) -> Tenant:
        tenant = await self.tenant(tenant_id)
        if tenant is None:
            raise NotFound(f"The tenant {tenant_id!r} does not exist.")
        return tenant

    async def _tenants(self, tenant_id: str | None) -> list[Tenant]:
        query, limits = select(tenants).order_by(tenants.c.id), select(tenant_limits)
        if tenant_id is not None:
            query = query.where(tenants.c.id == tenant_id)
            limits = limits.where(tenant_limits.c.tenant == tenant_id)
        order = (tenant_limits.c.capability, tenant_limits.c.unit, tenant_limits.c.window)
        by_tenant: dict[str, list[Limit]] = {}
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
            for row in await connection.execute(limits.order_by(*order)):
                by_tenant.setdefault(row.tenant, []).append(
                    Limit(row.capability, Unit(row.unit), Window(row.window), row.amount)
                )
        return [_tenant(row, tuple(by_tenant.get(row.id, ()))) for row in rows]

    async def _put_limit(self, connection: AsyncConnection, tenant_id: str, limit: Limit) -> None:
        statement = upsert(self._engine.dialect.name)(tenant_limits).values(
            tenant=tenant_id,
            capability=limit.capability,
            unit=limit.unit.value,
            window=limit.window.value,
            amount=limit.amount,
        )
        await connection.execute(
            statement.on_conflict_do_update(
                index_elements=list(tenant_limits.primary_key.columns),
                set_={"amount": limit.amount},
            )
        )


def _expect_one(rows: int, message: str) -> None:
    if rows != 1:
        raise NotFound(message)


def _tenant(row: Row[tuple[object, ...]], limits: tuple[Limit, ...]) -> Tenant:
    return Tenant(
        id=row.id,
        name=row.name,
        blocked=row.blocked,
        unlimited=row.unlimited,
        weight=row.weight,
        limits=limits,
        created_at=row.created_at,
    )
