"""Everything of a tenant as JSON Lines: its record, keys without secrets, limits and usage.

What its work cost the operator is not the tenant's, and stays out.
"""

from collections.abc import AsyncIterator, Mapping

import msgspec
from sqlalchemy import select, tuple_

from atrium_common.errors import NotFound
from atrium_gateway.audit.facts import key_facts, limits_of, tenant_facts
from atrium_gateway.database_scope import Database
from atrium_gateway.tenants.repository import TenantRepository
from atrium_gateway.usage.tables import usage_events

_PAGE = 1000
_EVENT = [column for column in usage_events.columns if column.name != "provider_cost_nano"]
_ENCODER = msgspec.json.Encoder()


async def exported(database: Database, tenant_id: str) -> AsyncIterator[bytes]:
    """Gives the lines; each is a JSON object whose ``kind`` says what it is.

    Raises:
        NotFound: There is no such tenant.
    """
    tenants = TenantRepository(database)
    tenant = await tenants.tenant(tenant_id)
    if tenant is None:
        raise NotFound("There is no such tenant.", reason="TENANT_NOT_FOUND")
    yield _line(
        "tenant", {"id": tenant.id, "created_at": tenant.created_at, **tenant_facts(tenant)}
    )
    for key in await tenants.list_keys(tenant_id):
        yield _line("key", {"id": key.id, "created_at": key.created_at, **key_facts(key)})
    for name, limit in limits_of(tenant).items():
        yield _line("limit", {"name": name, **limit})
    async for line in _events(database, tenant_id):
        yield line


async def _events(database: Database, tenant_id: str) -> AsyncIterator[bytes]:
    """Pages through the index, so that a large ledger is never in memory."""
    columns = usage_events.c
    last = (-1, "")
    while True:
        query = (
            select(*_EVENT)
            .where(columns.tenant == tenant_id)
            .where(tuple_(columns.started_ms, columns.id) > last)
            .order_by(columns.started_ms, columns.id)
            .limit(_PAGE)
        )
        async with database.connect() as connection:
            rows = (await connection.execute(query)).mappings().all()
        for row in rows:
            yield _line("usage_event", {str(name): value for name, value in row.items()})
        if len(rows) < _PAGE:
            return
        last = (rows[-1]["started_ms"], rows[-1]["id"])


def _line(kind: str, record: Mapping[str, object]) -> bytes:
    return _ENCODER.encode({"kind": kind, **record}) + b"\n"
