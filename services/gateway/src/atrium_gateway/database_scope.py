"""What repositories run on: the whole database, one tenant's part of it, or one transaction.

Endpoints reach tenants' records through `TenantScope`, so that PostgreSQL itself hides those
of other tenants; background work and the CLI use the engine. SQLite knows no such rules.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from sqlalchemy import Dialect, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

SCOPED_ROLE = "atrium_tenant"
"""Role that sees only the rows of the tenant that the transaction names; migration 0006."""
TENANT_VARIABLE = "atrium.tenant"
"""Session variable that names it."""

_ENTER = (
    text(f"SET LOCAL ROLE {SCOPED_ROLE}"),
    text(f"SELECT set_config('{TENANT_VARIABLE}', :tenant, true)"),
)


class Database(Protocol):
    """Gives connections; an `AsyncEngine` is one."""

    @property
    def dialect(self) -> Dialect:
        """What it speaks."""
        ...

    def begin(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection in a transaction that commits at the end of the block."""
        ...

    def connect(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection to read from."""
        ...


class TenantScope:
    """The part of the database that belongs to one tenant.

    Args:
        engine: The database.
        tenant: Whose rows are seen and written; others' are not there.
    """

    def __init__(self, engine: AsyncEngine, tenant: str) -> None:
        self._engine = engine
        self._tenant = tenant

    @property
    def dialect(self) -> Dialect:
        """What the database speaks."""
        return self._engine.dialect

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction within the tenant's rows."""
        async with self._engine.begin() as connection:
            await self._enter(connection)
            yield connection

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """A connection within the tenant's rows; what it writes is rolled back."""
        async with self._engine.connect() as connection:
            await self._enter(connection)
            yield connection

    async def _enter(self, connection: AsyncConnection) -> None:
        if self.dialect.name != "postgresql":
            return
        # Both hold until the transaction ends: the pool's next user starts as itself.
        role, variable = _ENTER
        await connection.execute(role)
        await connection.execute(variable, {"tenant": self._tenant})


class Joined:
    """One transaction as a database, so that what several repositories write commits at once.

    Args:
        connection: In a transaction that its owner ends.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    @property
    def dialect(self) -> Dialect:
        """What the database speaks."""
        return self._connection.dialect

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """The transaction; it goes on after the block, without what a block that fails did."""
        if self.dialect.name != "postgresql":
            # A statement that fails leaves SQLite's transaction as it was before it.
            yield self._connection
            return
        async with self._connection.begin_nested():
            yield self._connection

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """The same, to read from."""
        yield self._connection
