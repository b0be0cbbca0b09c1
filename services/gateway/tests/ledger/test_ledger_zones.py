"""The ledger's days follow the tenants' time zones, whatever one of them says."""

from datetime import UTC, datetime

from ledger_events import make_event
from sqlalchemy import insert

from atrium_gateway.tenants.tables import tenants
from atrium_gateway.usage.kept import kept_zone
from atrium_gateway.usage.rezone import follow_zones
from atrium_gateway.usage.spool import Spool
from atrium_gateway.usage.writer import LedgerWriter


async def test_a_zone_that_this_machine_lacks_keeps_no_other_tenant_waiting(engine, tmp_path):
    zones = {"a-lost": "Mars/Phobos", "b-found": "Europe/Berlin"}
    spool = Spool(tmp_path / "spool", segment_bytes=1 << 20, carry=list)
    writer = LedgerWriter(engine, spool, interval=1)
    await writer._store([make_event(n, tenant=tenant) for n, tenant in enumerate(zones)])
    async with engine.begin() as connection:
        for tenant, zone in zones.items():
            row = {"id": tenant, "name": tenant, "blocked": False, "unlimited": False}
            row |= {"weight": 1.0, "created_at": datetime.now(UTC), "time_zone": zone}
            await connection.execute(insert(tenants).values(fallback="local", **row))
    await follow_zones(engine)
    async with engine.connect() as connection:
        assert await kept_zone(connection, "a-lost") == "UTC"
        assert await kept_zone(connection, "b-found") == "Europe/Berlin"
