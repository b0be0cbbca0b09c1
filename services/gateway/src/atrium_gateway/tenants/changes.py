"""How running gateways notice changes of tenants, keys and limits; who writes them says so.

A counter in the database is what they look at once a second. Beside it, whoever holds an
engine can be told of a change as soon as it is committed: `core.py` passes that on.
"""

from collections.abc import Callable
from typing import Final

from sqlalchemy import event, update
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from atrium_gateway.tenants.tables import directory_version

_MARK: Final = "atrium_directory_changed"


async def changed(connection: AsyncConnection) -> int:
    """Says, at the beginning of a change's transaction, that there is one.

    Every other change waits until this one ends: what is read after this still holds when
    it commits, and no two changes wait for each other in a circle.

    Returns:
        The version that it makes; every change has another, greater one.
    """
    more = update(directory_version).values(version=directory_version.c.version + 1)
    version = await connection.scalar(more.returning(directory_version.c.version))
    connection.info[_MARK] = set()  # of those who have told of it
    return version or 0


def on_change(engine: AsyncEngine, tell: Callable[[], None]) -> None:
    """Calls `tell` after every transaction of `engine` that changed something.

    It runs on the event loop as the connection returns to its pool: whoever reads then sees
    the change. A change that was rolled back is told of, too. Several may listen.
    """

    def returned(_: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        told = entry.info.get(_MARK)
        if told is not None and tell not in told:
            told.add(tell)
            tell()

    event.listen(engine.sync_engine, "checkin", returned)
