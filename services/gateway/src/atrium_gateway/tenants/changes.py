"""The counter by which a running gateway notices changes; whoever writes the directory bumps it."""

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from atrium_gateway.tenants.tables import directory_version


async def changed(connection: AsyncConnection) -> None:
    """Says, in the transaction of a change, that there is one."""
    await connection.execute(
        update(directory_version).values(version=directory_version.c.version + 1)
    )
