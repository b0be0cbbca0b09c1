"""Tenants and keys as the running gateway knows them: cached, at most a second old.

The authenticator and admission ask it on every request. It is told of changes (`changes.py`,
`redis_changes.py`), and once a second one cheap query for the directory's version finds what
was not told; while the database is away, what is known stays valid.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Protocol, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError

from atrium_common.errors import PermissionDenied, Unauthenticated, Unavailable
from atrium_gateway.tenants.domain import ApiKey, Fallback, Tenant

T = TypeVar("T")
_log = structlog.get_logger(__name__)

MAX_AGE_SECONDS = 0.8
"""A view older than this is checked before it is used."""
_QUERY_SECONDS = 2.0
_MAX_ENTRIES = 10_000
_AWAY = (SQLAlchemyError, OSError, TimeoutError)


class TenantSource(Protocol):
    """What the directory reads from; `TenantRepository` is one."""

    async def version(self) -> int:
        """Number of changes so far."""
        ...

    async def tenant(self, tenant_id: str) -> Tenant | None:
        """One tenant, or ``None``."""
        ...

    async def key(self, key_id: str) -> ApiKey | None:
        """One key, or ``None``."""
        ...


class Directory:
    """A bounded cache over the repository, emptied when the version moves.

    Args:
        source: The repository.
        clock: Returns seconds, monotonic.
    """

    def __init__(self, source: TenantSource, *, clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        self._tenants: dict[str, Tenant | None] = {}
        self._keys: dict[str, ApiKey | None] = {}
        self._version = -1
        self._checked = float("-inf")
        self._checking = asyncio.Lock()
        self.epoch = 0
        """Grows by one whenever anything may have changed; caches above compare it."""

    @property
    def stale(self) -> bool:
        """Whether `check` has something to do."""
        return self._clock() - self._checked >= MAX_AGE_SECONDS

    async def check(self) -> None:
        """Makes sure that the view is at most a second old, as far as the database is there."""
        if not self.stale:
            return
        async with self._checking:
            started = self._clock()
            if started - self._checked < MAX_AGE_SECONDS:
                return
            try:
                async with asyncio.timeout(_QUERY_SECONDS):
                    version = await self._source.version()
            except _AWAY as err:
                _log.warning("directory_unchecked", error=type(err).__name__)
                self._checked = self._clock()
                return
            if version != self._version:
                self._forget()
                self._version = version
            self._checked = started

    async def tenant(self, tenant_id: str) -> Tenant | None:
        """One tenant, or ``None`` if there is none.

        Raises:
            Unavailable: It is not cached and the database is away.
        """
        await self.check()
        if tenant_id in self._tenants:
            return self._tenants[tenant_id]
        return await self._load(self._tenants, tenant_id, self._source.tenant)

    async def key(self, key_id: str) -> ApiKey | None:
        """One key, or ``None`` if there is none.

        Raises:
            Unavailable: It is not cached and the database is away.
        """
        await self.check()
        if key_id in self._keys:
            return self._keys[key_id]
        return await self._load(self._keys, key_id, self._source.key)

    async def active_tenant(self, tenant_id: str) -> Tenant:
        """A tenant that may be served.

        Raises:
            Unauthenticated: There is no such tenant.
            PermissionDenied: It is blocked.
            Unavailable: It is not cached and the database is away.
        """
        tenant = None if self.stale else self._tenants.get(tenant_id)
        if tenant is None:
            tenant = await self.tenant(tenant_id)
        if tenant is None:
            raise Unauthenticated("The tenant does not exist.", reason="TENANT_UNKNOWN")
        if tenant.blocked:
            raise PermissionDenied("The tenant is blocked.", reason="TENANT_BLOCKED")
        return tenant

    def refresh(self) -> None:
        """Forgets what is known, for something has changed; called on the event loop."""
        self._forget()
        self._checked = float("-inf")

    def falls_back(self, tenant_id: str) -> bool:
        """Whether a tenant's rates may be counted by each gateway alone for a while."""
        tenant = self._tenants.get(tenant_id)
        return tenant is None or tenant.fallback is Fallback.LOCAL

    def _forget(self) -> None:
        self._tenants.clear()
        self._keys.clear()
        self.epoch += 1

    async def _load(
        self,
        cache: dict[str, T | None],
        key: str,
        load: Callable[[str], Awaitable[T | None]],
    ) -> T | None:
        epoch = self.epoch
        try:
            async with asyncio.timeout(_QUERY_SECONDS):
                found = await load(key)
        except _AWAY as err:
            raise Unavailable(
                "The database can't be reached now.", retry_after=timedelta(seconds=2)
            ) from err
        # A row read before a change was noticed must not outlive the notice.
        if epoch == self.epoch:
            if len(cache) >= _MAX_ENTRIES:
                cache.clear()
            cache[key] = found
        return found
