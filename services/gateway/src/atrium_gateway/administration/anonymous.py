"""Takes a tenant's name, its users and keys out of the ledger, and leaves every sum."""

from sqlalchemy import (
    BigInteger,
    Executable,
    Table,
    cast,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_gateway.database import metadata, upsert
from atrium_gateway.usage.kept import NOBODY, kept_zone
from atrium_gateway.usage.lock import write_alone
from atrium_gateway.usage.tables import ledger_late, ledger_tenants, usage_events

_BATCH = 10_000


async def anonymise(engine: AsyncEngine, tenant: str, alias: str) -> None:
    """Moves events and roll-ups of `tenant` to `alias`; safe to repeat, and to break off.

    What is written from now on comes under the alias at once: requests that were running end
    later, and other gateways' spools hold what they did. Events go in batches, each by
    itself: a large ledger must not be one transaction.
    """
    await _rename(engine, tenant, alias)
    some = select(usage_events.c.id).where(usage_events.c.tenant == tenant).limit(_BATCH)
    nameless = (
        update(usage_events)
        .where(usage_events.c.id.in_(some.scalar_subquery()))
        .values(tenant=alias, subject=NOBODY, key_id=None, request_id="")
    )
    while True:
        async with engine.begin() as connection:
            if (await connection.execute(nameless)).rowcount < _BATCH:
                break
    for table in _rollups():
        async with engine.connect() as connection:
            # A batch that is added meanwhile would be lost between the sums and their removal.
            await write_alone(connection)
            rows = (await connection.execute(_merged(table, (tenant, alias), alias))).mappings()
            merged = [dict(row) for row in rows]
            await connection.execute(delete(table).where(table.c.tenant.in_((tenant, alias))))
            if merged:
                await connection.execute(insert(table), merged)
            await connection.commit()


async def _rename(engine: AsyncEngine, tenant: str, alias: str) -> None:
    async with engine.connect() as connection:
        await write_alone(connection)
        zone = await kept_zone(connection, tenant)
        put = upsert(connection.dialect.name)(ledger_tenants)
        for name, stands in ((tenant, alias), (alias, None)):
            kept = put.values(tenant=name, zone=zone, alias=stands)
            await connection.execute(
                kept.on_conflict_do_update(
                    index_elements=[ledger_tenants.c.tenant], set_={"alias": stands}
                )
            )
        await connection.execute(delete(ledger_late).where(ledger_late.c.tenant == tenant))
        await connection.commit()


def _rollups() -> list[Table]:
    return [
        table
        for name, table in metadata.tables.items()
        if name.startswith("usage_") and table is not usage_events and "tenant" in table.columns
    ]


def _merged(table: Table, tenants: tuple[str, ...], alias: str) -> Executable:
    """Rows of `tenants` summed as those of one tenant with one user and no key."""
    replaced = {
        "tenant": literal(alias),
        "subject": literal(NOBODY),
        "key_id": literal(""),
    }
    parts = [column for column in table.primary_key.columns if column.name not in replaced]
    sums = [
        cast(func.sum(column), BigInteger).label(column.name)
        for column in table.columns
        if not column.primary_key
    ]
    named = [value.label(name) for name, value in replaced.items() if name in table.columns]
    return select(*named, *parts, *sums).where(table.c.tenant.in_(tenants)).group_by(*parts)
