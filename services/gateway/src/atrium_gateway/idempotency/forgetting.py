"""Removes what is kept of a tenant for `Idempotency-Key`; its deletion and the store use it."""

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from atrium_gateway.idempotency.tables import idempotency_keys, idempotency_totals


async def forget(connection: AsyncConnection, tenant: str) -> None:
    """Removes keys with their answers, and what is counted of them, in this transaction."""
    for table in (idempotency_totals, idempotency_keys):  # pieces go with their keys
        await connection.execute(delete(table).where(table.c.tenant == tenant))
