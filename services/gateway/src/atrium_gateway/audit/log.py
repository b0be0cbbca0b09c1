"""Appends audit entries to the transaction of a change, and reads them for `/api/audit`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import Row, Select, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from atrium_gateway.audit.domain import Action, Actor, AuditEntry, Facts
from atrium_gateway.audit.tables import audit_entries
from atrium_gateway.database_scope import Database

_DECODER = msgspec.json.Decoder(
    dict[str, str | int | float | bool | list[str] | None]  # `Facts` as JSON
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which entries are asked for; ``None`` leaves a field open.

    Attributes:
        tenant: Whose records changed.
        action: What was done.
        target: Id of what changed.
        actor: Subject of who did it.
        start: Not before this time.
        end: Before this time.
    """

    tenant: str | None = None
    action: str | None = None
    target: str | None = None
    actor: str | None = None
    start: datetime | None = None
    end: datetime | None = None


async def append(connection: AsyncConnection, entry: AuditEntry) -> None:
    """Writes an entry; it stands if and only if the connection's transaction commits."""
    await connection.execute(
        insert(audit_entries).values(
            id=entry.id,
            at=entry.at,
            tenant=entry.tenant,
            actor=entry.by.subject,
            actor_tenant=entry.by.tenant,
            actor_key=entry.by.key_id,
            action=entry.action.value,
            target=entry.target,
            request_id=entry.by.request_id,
            before=_json(entry.before),
            after=_json(entry.after),
        )
    )


class AuditLog:
    """Reads entries.

    Args:
        database: All entries, or those that a tenant's scope shows.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def entries(
        self, wanted: AuditFilter, *, limit: int, after: str | None = None
    ) -> Sequence[AuditEntry]:
        """Entries, newest first.

        Args:
            wanted: Which ones.
            limit: Most of them, above 0.
            after: Id of the last entry of the page before.
        """
        query = _filtered(select(audit_entries), wanted)
        if after is not None:
            query = query.where(audit_entries.c.id < after)
        query = query.order_by(audit_entries.c.id.desc()).limit(limit)
        async with self._database.connect() as connection:
            return [_entry(row) for row in await connection.execute(query)]


def _filtered(query: Select[tuple[object, ...]], wanted: AuditFilter) -> Select[tuple[object, ...]]:
    columns = audit_entries.c
    equal = (
        (columns.tenant, wanted.tenant),
        (columns.action, wanted.action),
        (columns.target, wanted.target),
        (columns.actor, wanted.actor),
    )
    for column, value in equal:
        if value is not None:
            query = query.where(column == value)
    if wanted.start is not None:
        query = query.where(columns.at >= wanted.start)
    if wanted.end is not None:
        query = query.where(columns.at < wanted.end)
    return query


def _json(facts: Facts | None) -> str | None:
    return None if facts is None else msgspec.json.encode(facts).decode()


def _entry(row: Row[tuple[object, ...]]) -> AuditEntry:
    return AuditEntry(
        id=row.id,
        at=row.at,
        by=Actor(
            subject=row.actor,
            tenant=row.actor_tenant,
            key_id=row.actor_key,
            request_id=row.request_id,
        ),
        action=Action(row.action),
        tenant=row.tenant,
        target=row.target,
        before=None if row.before is None else _DECODER.decode(row.before),
        after=None if row.after is None else _DECODER.decode(row.after),
    )
