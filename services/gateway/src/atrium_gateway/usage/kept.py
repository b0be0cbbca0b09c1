"""How the ledger keeps each tenant: the zone of its days, its alias, and what is remembered.

The writer reads it in the transaction of each batch; reports ask for the zone.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from msgspec import structs
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from atrium_gateway.usage.records import UsageEvent
from atrium_gateway.usage.tables import RETAINED, ledger_marks, ledger_tenants

UTC_ZONE = "UTC"
NOBODY = "deleted"
"""Who used what, once a tenant's name is taken out of the ledger."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What holds for a batch.

    Attributes:
        zones: Zone of the days of each tenant that has not UTC's.
        aliases: What stands for tenants that are deleted.
        retained_ms: Events admitted before this Unix ms may have been deleted.
    """

    zones: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    retained_ms: int = 0

    def zone(self, tenant: str) -> str:
        """Zone of the tenant's days."""
        return self.zones.get(tenant, UTC_ZONE)

    def named(self, event: UsageEvent) -> UsageEvent:
        """`event` without names, if its tenant was deleted."""
        alias = self.aliases.get(event.tenant)
        if alias is None:
            return event
        return structs.replace(event, tenant=alias, subject=NOBODY, key_id=None, request_id="")


async def read_kept(connection: AsyncConnection, tenants: Collection[str]) -> Kept:
    """What holds for `tenants` within the connection's transaction."""
    table = ledger_tenants.c
    rows = (
        await connection.execute(
            select(table.tenant, table.zone, table.alias).where(table.tenant.in_(sorted(tenants)))
        )
    ).all()
    aliases = {row.tenant: row.alias for row in rows if row.alias is not None}
    # An alias has the zone of whom it stands for.
    zones = {aliases.get(row.tenant, row.tenant): row.zone for row in rows}
    mark = select(ledger_marks.c.value).where(ledger_marks.c.name == RETAINED)
    return Kept(zones, aliases, await connection.scalar(mark) or 0)


async def kept_zone(connection: AsyncConnection, tenant: str) -> str:
    """Zone of the days that the ledger keeps of `tenant`."""
    query = select(ledger_tenants.c.zone).where(ledger_tenants.c.tenant == tenant)
    return await connection.scalar(query) or UTC_ZONE
