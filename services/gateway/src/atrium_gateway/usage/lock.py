"""Who may write the ledger's sums at a moment: all its writers together, or one change alone.

Writers add to sums side by side. What moves sums (another zone of days, a tenant's deletion,
retention) must not meet a batch that knows only what was before.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_KEY = 0x6C6564676572
_SHARED = text(f"SELECT pg_advisory_xact_lock_shared({_KEY})")
_ALONE = text(f"SELECT pg_advisory_xact_lock({_KEY})")


async def write_beside_others(connection: AsyncConnection) -> None:
    """Begins a transaction that waits for changes, and they for it; held until it ends."""
    await _enter(connection, alone=False)


async def write_alone(connection: AsyncConnection) -> None:
    """Begins a transaction during which no other writes sums; held until it ends."""
    await _enter(connection, alone=True)


async def _enter(connection: AsyncConnection, *, alone: bool) -> None:
    if connection.dialect.name == "postgresql":
        await connection.execute(_ALONE if alone else _SHARED)
    else:
        # SQLite has one writer; taken now, so that what is read next still holds at the end.
        await connection.exec_driver_sql("BEGIN IMMEDIATE")
