"""Where changes of tenants, keys and limits are made, with the name of who makes them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_common.errors import NotFound
from atrium_gateway.administration.prices import PriceDesk
from atrium_gateway.audit.domain import Action, Actor, AuditEntry, Facts
from atrium_gateway.audit.log import AuditLog, append
from atrium_gateway.audit.tenants import AuditedTenants
from atrium_gateway.auth.keys import NewKey, make_key, renew_key
from atrium_gateway.database_scope import Database, TenantScope
from atrium_gateway.quota.policy import LimitPolicy
from atrium_gateway.tenants.domain import ApiKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Administration:
    """What the endpoints and the CLI administer with; made once.

    Attributes:
        engine: The database, upgraded.
        pepper: Key of the digests of API keys.
        now: The time, aware UTC.
        new_id: Makes UUIDv7s.
        policy: Which limits hold.
        exports: Folder of what is exported before it is deleted.
        flush: Writes what the ledger's spool holds into the database.
    """

    engine: AsyncEngine
    pepper: bytes = field(repr=False)
    now: Callable[[], datetime]
    new_id: Callable[[], str]
    policy: LimitPolicy
    exports: Path
    flush: Callable[[], Awaitable[None]]

    def tenants(self, by: Actor, *, scope: str | None) -> AuditedTenants:
        """Tenants, keys and limits, changed in the name of `by`.

        Args:
            by: Who asks.
            scope: The only tenant to see; ``None`` for all.
        """
        return AuditedTenants(self._within(scope), by=by, now=self.now, new_id=self.new_id)

    def prices(self, by: Actor) -> PriceDesk:
        """The price book, changed in the name of `by`."""
        return PriceDesk(self.engine, by=by, now=self.now, new_id=self.new_id)

    def log(self, *, scope: str | None) -> AuditLog:
        """The audit log, of one tenant or of all."""
        return AuditLog(self._within(scope))

    async def note(self, by: Actor, action: Action, target: str, after: Facts) -> None:
        """Notes in the audit log what was done to the installation."""
        entry = AuditEntry(
            id=self.new_id(),
            at=self.now(),
            by=by,
            action=action,
            tenant=None,
            target=target,
            after=after,
        )
        async with self.engine.begin() as connection:
            await append(connection, entry)

    def new_key(self) -> NewKey:
        """A random key, not stored yet."""
        return make_key(self.pepper)

    def new_secret(self, key: ApiKey) -> NewKey:
        """Another secret for a key, not stored yet.

        Raises:
            NotFound: Its id can be no key's.
        """
        made = renew_key(key.id, self.pepper)
        if made is None:
            raise NotFound("There is no such key.", reason="KEY_NOT_FOUND")
        return made

    def _within(self, scope: str | None) -> Database:
        return self.engine if scope is None else TenantScope(self.engine, scope)
