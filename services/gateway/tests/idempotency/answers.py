"""What the tests of the store do with it again and again."""

from sqlalchemy import func, select

from atrium_gateway.idempotency.recorder import Recorder
from atrium_gateway.idempotency.tables import (
    idempotency_keys,
    idempotency_pieces,
    idempotency_totals,
)

HEADERS = (("content-type", "application/json"), ("x-atrium-id", "7"))


async def keep(store, attempt, body=b"{}", *, status=200):
    recorder = Recorder(store.bounds.answer_bytes)
    await recorder.add(body)
    try:
        return await store.keep(attempt, status=status, headers=HEADERS, body=recorder)
    finally:
        recorder.close()


async def read(store, answer):
    return b"".join([piece async for piece in store.pieces(answer)])


async def refusal(work):
    """The error code that an operation ends with."""
    try:
        await work
    except Exception as err:
        return getattr(err, "reason", repr(err))
    return None


async def totals(engine, tenant):
    """What is counted of a tenant, after it is compared with what is there."""
    keys, pieces, counted = idempotency_keys.c, idempotency_pieces.c, idempotency_totals.c
    async with engine.connect() as connection:
        row = (
            await connection.execute(
                select(counted.held, counted.bytes).where(counted.tenant == tenant)
            )
        ).one_or_none() or (0, 0)
        there = await connection.execute(
            select(func.count(), func.coalesce(func.sum(keys.size), 0)).where(keys.tenant == tenant)
        )
        stored = await connection.scalar(
            select(func.coalesce(func.sum(func.length(pieces.data)), 0)).where(
                pieces.tenant == tenant
            )
        ) + await connection.scalar(
            select(func.coalesce(func.sum(func.length(keys.body)), 0)).where(keys.tenant == tenant)
        )
    count, size = there.one()
    assert tuple(row) == (count, int(size))
    assert int(size) == int(stored)
    return count, int(size)
