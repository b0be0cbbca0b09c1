"""Lets one process at a time delete a tenant; a lock that dies with who holds it.

On PostgreSQL it is an advisory lock of a connection, which holds for all gateways; on SQLite,
which serves one machine, a lock on a file beside the exports.
"""

import fcntl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_common.errors import Conflict

_SPACE = 0x44656C
_TRY = text(f"SELECT pg_try_advisory_lock({_SPACE}, hashtext(:tenant))")
_FREE = text(f"SELECT pg_advisory_unlock({_SPACE}, hashtext(:tenant))")


@asynccontextmanager
async def deleting_alone(engine: AsyncEngine, folder: Path, tenant: str) -> AsyncIterator[None]:
    """Holds the lock of a tenant's deletion.

    Args:
        engine: The database.
        folder: Where the lock's file is, if it is one; made if missing.
        tenant: Who is deleted.

    Raises:
        Conflict: Another process, or another request of this one, is at it.
    """
    if engine.dialect.name != "postgresql":
        with _file(folder, tenant):
            yield
        return
    async with engine.connect() as connection:
        if not await connection.scalar(_TRY, {"tenant": tenant}):
            raise _busy(tenant)
        await connection.commit()
        freed = False
        try:
            yield
        finally:
            try:
                await connection.execute(_FREE, {"tenant": tenant})
                await connection.commit()
                freed = True
            finally:
                if not freed:
                    # The lock is the connection's, which must not go back to the pool with it.
                    await connection.invalidate()


@contextmanager
def _file(folder: Path, tenant: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / f"{tenant}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise _busy(tenant) from err
        yield


def _busy(tenant: str) -> Conflict:
    return Conflict(f"The tenant {tenant!r} is being deleted now.", reason="DELETION_RUNNING")
