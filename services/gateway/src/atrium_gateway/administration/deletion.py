"""Deletes a tenant, step by step: what a crash interrupts `keeper.py` takes up where it was.

Blocked first, so that nothing is added; then exported, its voices deleted, the ledger made
anonymous, and its records removed. The audit log keeps what was done.
"""

import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from atrium_common.errors import NotFound
from atrium_gateway.administration.anonymous import anonymise
from atrium_gateway.administration.desk import Administration
from atrium_gateway.administration.exclusive import deleting_alone
from atrium_gateway.administration.export import exported
from atrium_gateway.audit.domain import Action, Actor, AuditEntry, Facts
from atrium_gateway.audit.log import append
from atrium_gateway.database_scope import Joined
from atrium_gateway.idempotency.forgetting import forget
from atrium_gateway.tenants.changes import changed
from atrium_gateway.tenants.repository import TenantRepository
from atrium_gateway.tenants.tables import api_keys, tenant_deletions, tenant_limits, tenants


class Step(StrEnum):
    """What is done, in this order."""

    BLOCKED = "blocked"
    EXPORTED = "exported"
    VOICES = "voices"
    LEDGER = "ledger"
    REMOVED = "removed"


class OwnedVoice(Protocol):
    """What is asked of a voice."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def cloned(self) -> bool:
        """Whether a tenant made it."""
        ...


class Voices(Protocol):
    """The tts service, as far as a deletion needs it."""

    async def voices(
        self, *, model: str, language: str, tenant: str, request_id: str
    ) -> Sequence[OwnedVoice]:
        """The voices that a tenant may use."""
        ...

    async def delete_voice(self, voice: str, *, tenant: str, request_id: str) -> None:
        """Deletes one of the tenant's."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """How far a deletion is.

    Attributes:
        tenant: Whose.
        alias: What stands for it in the ledger.
        step: The last one that is done.
        started_at: Aware UTC.
        finished_at: Aware UTC, or ``None``.
    """

    tenant: str
    alias: str
    step: Step
    started_at: datetime
    finished_at: datetime | None

    @property
    def export_name(self) -> str:
        """Name of the file with what the tenant was."""
        return f"{self.tenant}-{self.alias}.jsonl"


class TenantDeletion:
    """Deletes tenants.

    Args:
        desk: The database, the clock, and where exports go, readable by their owner alone.
        by: Who asks.
        voices: The tts service; ``None`` where the suite has none.
    """

    def __init__(self, desk: Administration, *, by: Actor, voices: Voices | None) -> None:
        self._desk = desk
        self._by = by
        self._exports = desk.exports
        self._voices = voices

    async def delete(self, tenant: str) -> Deletion:
        """Deletes a tenant, or goes on with it.

        What running requests leave later the ledger's writer makes anonymous itself.

        Raises:
            NotFound: There is no such tenant and never was.
            Conflict: Another process is at it.
            Unavailable: The tts service does not answer; the tenant is blocked, and another
                call or a gateway's `keeper.py` goes on.
        """
        async with deleting_alone(self._desk.engine, self._exports, tenant):
            return await self._delete(tenant)

    async def _delete(self, tenant: str) -> Deletion:
        deletion = await self._state(tenant) or await self._begin(tenant)
        await self._desk.flush()
        if deletion.step is Step.BLOCKED:
            await self._export(deletion)
            await self._done(deletion, Step.EXPORTED)
        if deletion.step in (Step.BLOCKED, Step.EXPORTED):
            await self._delete_voices(tenant)
            await self._done(deletion, Step.VOICES)
        await anonymise(self._desk.engine, tenant, deletion.alias)
        await self._remove(deletion)
        return await self._state(tenant) or deletion

    def file(self, deletion: Deletion) -> Path:
        """Where the export is."""
        return self._exports / deletion.export_name

    async def _state(self, tenant: str) -> Deletion | None:
        query = select(tenant_deletions).where(tenant_deletions.c.tenant == tenant)
        async with self._desk.engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        return Deletion(
            tenant=row.tenant,
            alias=row.alias,
            step=Step(row.step),
            started_at=row.started_at,
            finished_at=row.finished_at,
        )

    async def _begin(self, tenant: str) -> Deletion:
        now = self._desk.now()
        made = Deletion(
            tenant=tenant,
            alias=f"deleted-{secrets.token_hex(8)}",
            step=Step.BLOCKED,
            started_at=now,
            finished_at=None,
        )
        async with self._audited(Action.TENANT_DELETE, tenant, {"alias": made.alias}) as connection:
            repository = TenantRepository(Joined(connection))
            if await repository.tenant(tenant) is None:
                raise NotFound("There is no such tenant.", reason="TENANT_NOT_FOUND")
            await repository.set_blocked(tenant, blocked=True)
            for key in await repository.list_keys(tenant):
                await repository.revoke_key(key.id, now=now)
            await connection.execute(
                insert(tenant_deletions).values(
                    tenant=tenant, alias=made.alias, step=made.step.value, started_at=now
                )
            )
        return made

    async def _done(self, deletion: Deletion, step: Step) -> None:
        async with self._desk.engine.begin() as connection:
            await connection.execute(
                update(tenant_deletions)
                .where(tenant_deletions.c.tenant == deletion.tenant)
                .values(step=step.value)
            )

    async def _export(self, deletion: Deletion) -> None:
        self._exports.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = self.file(deletion)
        draft = file.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as out:  # noqa: ASYNC230 - a page at a time, and rarely
            async for line in exported(self._desk.engine, deletion.tenant):
                out.write(line)
            out.flush()
            os.fsync(out.fileno())
        draft.rename(file)

    async def _delete_voices(self, tenant: str) -> None:
        if self._voices is None:
            return
        request_id = self._by.request_id or f"delete-{tenant}"
        own = await self._voices.voices(model="", language="", tenant=tenant, request_id=request_id)
        for voice in own:
            if voice.cloned:
                await self._voices.delete_voice(voice.id, tenant=tenant, request_id=request_id)

    async def _remove(self, deletion: Deletion) -> None:
        """Removes every record; what is gone already is left alone."""
        tenant = deletion.tenant
        async with self._desk.engine.begin() as connection:
            await forget(connection, tenant)
        if deletion.step is Step.REMOVED:
            return
        async with self._audited(Action.TENANT_DELETED, tenant, None) as connection:
            await changed(connection)
            for table in (tenant_limits, api_keys):
                await connection.execute(delete(table).where(table.c.tenant == tenant))
            await connection.execute(delete(tenants).where(tenants.c.id == tenant))
            await connection.execute(
                update(tenant_deletions)
                .where(tenant_deletions.c.tenant == tenant)
                .values(step=Step.REMOVED.value, finished_at=self._desk.now())
            )

    @asynccontextmanager
    async def _audited(
        self, action: Action, tenant: str, after: Facts | None
    ) -> AsyncIterator[AsyncConnection]:
        async with self._desk.engine.begin() as connection:
            yield connection
            entry = AuditEntry(
                id=self._desk.new_id(),
                at=self._desk.now(),
                by=self._by,
                action=action,
                tenant=tenant,
                target=tenant,
                after=after,
            )
            await append(connection, entry)
