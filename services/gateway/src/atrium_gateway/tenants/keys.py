"""Reads and writes API keys; `TenantRepository` is one of these, and the CLI uses it."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Row, and_, bindparam, insert, or_, select, update

from atrium_common.errors import Conflict, InvalidArgument, NotFound
from atrium_gateway.database_scope import Database
from atrium_gateway.tenants.changes import changed
from atrium_gateway.tenants.domain import ApiKey
from atrium_gateway.tenants.tables import api_keys, tenants


class KeyRepository:
    """API keys in the database.

    Args:
        engine: The database, upgraded, or a part of it.
    """

    def __init__(self, engine: Database) -> None:
        self._engine = engine

    async def key(self, key_id: str) -> ApiKey | None:
        """One key, or ``None``."""
        async with self._engine.connect() as connection:
            row = (
                await connection.execute(select(api_keys).where(api_keys.c.id == key_id))
            ).one_or_none()
        return _key(row) if row else None

    async def list_keys(
        self, tenant_id: str, *, after: str | None = None, limit: int | None = None
    ) -> Sequence[ApiKey]:
        """Keys of a tenant, oldest first, revoked ones too.

        Args:
            tenant_id: Whose.
            after: Id of the key to go on after.
            limit: Most of them; all if not given.

        Raises:
            NotFound: There is no such tenant.
            InvalidArgument: `after` is no key of the tenant.
        """
        await self._expect_tenant(tenant_id)
        keys = api_keys.c
        query = (
            select(api_keys)
            .where(keys.tenant == tenant_id)
            .order_by(keys.created_at, keys.id)
            .limit(limit)
        )
        if after is not None:
            mark = await self.key(after)
            if mark is None or mark.tenant != tenant_id:
                raise InvalidArgument("after names no key.", field="after")
            same = and_(keys.created_at == mark.created_at, keys.id > mark.id)
            query = query.where(or_(keys.created_at > mark.created_at, same))
        async with self._engine.connect() as connection:
            return [_key(row) for row in await connection.execute(query)]

    async def create_key(self, key: ApiKey) -> None:
        """Adds a key.

        Raises:
            NotFound: Its tenant does not exist.
        """
        await self._expect_tenant(key.tenant)
        async with self._engine.begin() as connection:
            await changed(connection)
            await connection.execute(
                insert(api_keys).values(
                    id=key.id,
                    tenant=key.tenant,
                    name=key.name,
                    digest=key.digest,
                    scopes=" ".join(sorted(key.scopes)),
                    roles=" ".join(sorted(key.roles)),
                    models=" ".join(sorted(key.models)),
                    networks=" ".join(key.networks),
                    created_at=key.created_at,
                    expires_at=key.expires_at,
                    revoked_at=key.revoked_at,
                    last_used_at=key.last_used_at,
                    previous_digest=key.previous_digest,
                    previous_until=key.previous_until,
                )
            )

    async def change_key(self, key: ApiKey) -> None:
        """Writes what of a key may change: all but its tenant, secrets and times of use.

        Raises:
            NotFound: There is no such key, or it is revoked.
        """
        async with self._engine.begin() as connection:
            await changed(connection)
            done = await connection.execute(
                update(api_keys)
                .where(api_keys.c.id == key.id, api_keys.c.revoked_at.is_(None))
                .values(
                    name=key.name,
                    scopes=" ".join(sorted(key.scopes)),
                    roles=" ".join(sorted(key.roles)),
                    models=" ".join(sorted(key.models)),
                    networks=" ".join(key.networks),
                    expires_at=key.expires_at,
                )
            )
            if done.rowcount != 1:
                raise NotFound(f"The key {key.id!r} does not exist or is revoked.")

    async def rotate_key(
        self, key_id: str, *, digest: bytes, now: datetime, grace: timedelta
    ) -> ApiKey:
        """Gives a key another secret; the one that it has holds for `grace` beside it.

        A secret that was replaced before ends at once: never more than two hold.

        Args:
            key_id: The key.
            digest: Digest of the key with its new secret.
            now: Aware UTC.
            grace: 0 or more.

        Returns:
            The key as it is then.

        Raises:
            NotFound: There is no such key.
            Conflict: It is revoked, or was rotated by another at the same time.
        """
        key = await self.key(key_id)
        if key is None:
            raise NotFound(f"The key {key_id!r} does not exist.")
        async with self._engine.begin() as connection:
            await changed(connection)
            done = await connection.execute(
                update(api_keys)
                .where(
                    api_keys.c.id == key_id,
                    api_keys.c.revoked_at.is_(None),
                    api_keys.c.digest == key.digest,
                )
                .values(digest=digest, previous_digest=key.digest, previous_until=now + grace)
            )
            if done.rowcount != 1:
                raise Conflict(f"The key {key_id!r} is revoked or was just rotated.")
        rotated = await self.key(key_id)
        if rotated is None:
            raise NotFound(f"The key {key_id!r} does not exist.")
        return rotated

    async def revoke_key(self, key_id: str, *, now: datetime) -> None:
        """Revokes a key for good; one that is revoked keeps its first time.

        Raises:
            NotFound: There is no such key.
        """
        if await self.key(key_id) is None:
            raise NotFound(f"The key {key_id!r} does not exist.")
        async with self._engine.begin() as connection:
            await changed(connection)
            await connection.execute(
                update(api_keys)
                .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=now)
            )

    async def note_uses(self, uses: Mapping[str, datetime]) -> None:
        """Writes when keys were last used; an earlier time than is there changes nothing.

        No change of the directory: no cache is emptied by it.

        Args:
            uses: Aware UTC by key id.
        """
        if not uses:
            return
        at = bindparam("at", type_=api_keys.c.last_used_at.type)
        statement = (
            update(api_keys)
            .where(
                api_keys.c.id == bindparam("key"),
                or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at < at),
            )
            .values(last_used_at=at)
        )
        # In one order, so that two replicas never wait for each other.
        rows = [{"key": key, "at": uses[key]} for key in sorted(uses)]
        async with self._engine.begin() as connection:
            await connection.execute(statement, rows)

    async def _expect_tenant(self, tenant_id: str) -> None:
        query = select(tenants.c.id).where(tenants.c.id == tenant_id)
        async with self._engine.connect() as connection:
            if await connection.scalar(query) is None:
                raise NotFound(f"The tenant {tenant_id!r} does not exist.")


def _key(row: Row[tuple[object, ...]]) -> ApiKey:
    return ApiKey(
        id=row.id,
        tenant=row.tenant,
        name=row.name,
        digest=row.digest,
        scopes=frozenset(row.scopes.split()),
        roles=frozenset(row.roles.split()),
        models=frozenset(row.models.split()),
        networks=tuple(row.networks.split()),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        previous_digest=row.previous_digest,
        previous_until=row.previous_until,
    )
