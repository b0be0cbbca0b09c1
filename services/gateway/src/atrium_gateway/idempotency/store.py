"""Keys and answers in the database, for all replicas; SQLite and PostgreSQL alike.

Each operation is one transaction that begins by writing, so that two at once wait for each
other instead of failing. Rows of keys are locked before a tenant's totals, never after.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import msgspec
from sqlalchemy import ColumnElement, Row, and_, delete, insert, select, tuple_, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from atrium_common.errors import Unavailable
from atrium_gateway.database import upsert
from atrium_gateway.idempotency.domain import (
    Attempt,
    Bounds,
    KeptAnswer,
    in_flight,
    key_reused,
    keys_exhausted,
    not_kept,
)
from atrium_gateway.idempotency.recorder import Recorder
from atrium_gateway.idempotency.tables import (
    idempotency_keys,
    idempotency_pieces,
    idempotency_totals,
)

PENDING, ANSWERED, UNKEPT = "pending", "answered", "unkept"
SWEPT_AT_ONCE = 200
_RETRY = timedelta(seconds=2)
_keys, _pieces, _totals = idempotency_keys.c, idempotency_pieces.c, idempotency_totals.c


class AnswerStore:
    """Says of a key whether its request is new, and keeps the answer.

    Args:
        engine: The database, upgraded.
        bounds: How much is kept, and for how long.
        clock: Returns Unix seconds.
    """

    def __init__(self, engine: AsyncEngine, bounds: Bounds, *, clock: Callable[[], float]) -> None:
        self.bounds = bounds
        self._engine = engine
        self._clock = clock
        self._upsert = upsert(engine.dialect.name)

    async def claim(self, attempt: Attempt) -> KeptAnswer | None:
        """Takes the key for `attempt`, or gives the answer of the one before.

        Returns:
            ``None`` if the request is new: it may run, until `keep`, `forgo` or `release`.

        Raises:
            InvalidArgument: The key came before with another request.
            Conflict: The first one still runs, or its answer was not kept, or the tenant
                has too many keys.
            Unavailable: The database is away.
        """
        while True:
            async with self._transaction() as connection:
                if await self._take(connection, attempt):
                    return None
                row = await self._row(connection, attempt)
            # Without a row the first one has let go in this moment: once more.
            if row is not None:
                return self._known(attempt, row)

    async def renew(self, attempt: Attempt) -> bool:
        """Lengthens the lease; gives False if the key is lost."""
        async with self._transaction() as connection:
            lease = self._after(self.bounds.lease)
            found = update(idempotency_keys).where(_held(attempt)).values(until_ms=lease)
            return (await connection.execute(found)).rowcount == 1

    async def keep(
        self, attempt: Attempt, *, status: int, headers: tuple[tuple[str, str], ...], body: Recorder
    ) -> bool:
        """Stores an answer and closes the attempt; gives False if it has lost its key.

        An answer that is over a bound is not stored, as with `forgo`.
        """
        if body.over:
            return await self.forgo(attempt)
        text = msgspec.json.encode(headers).decode()
        async with self._transaction() as connection:
            if not await self._close(
                connection, attempt, ANSWERED, size=body.size, status=status, headers=text
            ):
                return False
            if not await self._has_room(connection, attempt.tenant, body.size):
                unkept = update(idempotency_keys).where(_at(attempt.tenant, attempt.digest))
                emptied = unkept.values(state=UNKEPT, status=None, headers=None, size=0)
                await connection.execute(emptied)
                return True
            number = 0
            async for piece in body.pieces():
                row = {"tenant": attempt.tenant, "digest": attempt.digest}
                row_of = insert(idempotency_pieces).values(**row, number=number, data=piece)
                await connection.execute(row_of)
                number += 1
            return True

    async def forgo(self, attempt: Attempt) -> bool:
        """Closes the attempt without its answer: a repeat is told so, and does not run."""
        async with self._transaction() as connection:
            return await self._close(connection, attempt, UNKEPT)

    async def release(self, attempt: Attempt) -> bool:
        """Gives the key back: the next request with it is new."""
        async with self._transaction() as connection:
            gone = await connection.execute(delete(idempotency_keys).where(_held(attempt)))
            if gone.rowcount:
                await self._subtract(connection, attempt.tenant, keys=1, size=0)
            return gone.rowcount == 1

    async def pieces(self, answer: KeptAnswer) -> AsyncIterator[bytes]:
        """Gives the body of a kept answer.

        Raises:
            Unavailable: The database is away, or the answer has just been forgotten.
        """
        number = sent = 0
        while sent < answer.size:
            async with self._transaction() as connection:
                of_answer = and_(
                    _pieces.tenant == answer.tenant,
                    _pieces.digest == answer.digest,
                    _pieces.number == number,
                    _keys.attempt == answer.attempt,
                )
                query = select(_pieces.data).join(idempotency_keys).where(of_answer)
                piece = await connection.scalar(query)
            if piece is None:
                raise Unavailable("The kept answer is not there any more.")
            yield piece
            number += 1
            sent += len(piece)

    async def sweep(self, *, at_once: int = SWEPT_AT_ONCE) -> int:
        """Forgets some of what has ended; gives how many keys, 0 if none is left."""
        ended = _keys.until_ms <= self._now()
        some = select(_keys.tenant, _keys.digest).where(ended).limit(at_once)
        query = delete(idempotency_keys).where(tuple_(_keys.tenant, _keys.digest).in_(some), ended)
        async with self._transaction() as connection:
            gone = (await connection.execute(query.returning(_keys.tenant, _keys.size))).all()
            by_tenant: dict[str, list[int]] = {}
            for row in gone:
                by_tenant.setdefault(row.tenant, []).append(row.size)
            for tenant, sizes in sorted(by_tenant.items()):
                await self._subtract(connection, tenant, keys=len(sizes), size=sum(sizes))
        return len(gone)

    async def forget(self, tenant: str) -> None:
        """Removes everything of a tenant."""
        async with self._transaction() as connection:
            await connection.execute(delete(idempotency_keys).where(_keys.tenant == tenant))
            await connection.execute(delete(idempotency_totals).where(_totals.tenant == tenant))

    async def _take(self, connection: AsyncConnection, attempt: Attempt) -> bool:
        """Makes the key's row, in the place of one that has ended; False if one lives."""
        if not await self._inserted(connection, attempt):
            ended = and_(_at(attempt.tenant, attempt.digest), _keys.until_ms <= self._now())
            query = delete(idempotency_keys).where(ended).returning(_keys.size)
            size = (await connection.execute(query)).scalar_one_or_none()
            if size is None:
                return False
            await self._subtract(connection, attempt.tenant, keys=1, size=size)
            if not await self._inserted(connection, attempt):
                return False
        await self._count(connection, attempt.tenant)
        return True

    async def _inserted(self, connection: AsyncConnection, attempt: Attempt) -> bool:
        query = self._upsert(idempotency_keys).values(
            tenant=attempt.tenant,
            digest=attempt.digest,
            fingerprint=attempt.fingerprint,
            attempt=attempt.id,
            request_id=attempt.request_id,
            state=PENDING,
            until_ms=self._after(self.bounds.lease),
            size=0,
        )
        query = query.on_conflict_do_nothing(index_elements=[_keys.tenant, _keys.digest])
        done = await connection.execute(query.returning(_keys.attempt))
        return done.first() is not None

    async def _count(self, connection: AsyncConnection, tenant: str) -> None:
        """Counts one more key; what is raised takes the transaction back."""
        most = self.bounds.tenant_keys
        query = self._upsert(idempotency_totals).values(tenant=tenant, held=1, bytes=0)
        query = query.on_conflict_do_update(
            index_elements=[_totals.tenant],
            set_={"held": _totals.held + 1},
            where=_totals.held < most,
        )
        if (await connection.execute(query.returning(_totals.held))).first() is None:
            raise keys_exhausted(most)

    async def _subtract(
        self, connection: AsyncConnection, tenant: str, *, keys: int, size: int
    ) -> None:
        query = update(idempotency_totals).where(_totals.tenant == tenant)
        await connection.execute(query.values(held=_totals.held - keys, bytes=_totals.bytes - size))

    async def _has_room(self, connection: AsyncConnection, tenant: str, size: int) -> bool:
        total = _totals.bytes + size
        query = update(idempotency_totals).where(
            _totals.tenant == tenant, total <= self.bounds.tenant_bytes
        )
        return (await connection.execute(query.values(bytes=total))).rowcount == 1

    async def _close(
        self, connection: AsyncConnection, attempt: Attempt, state: str, **values: str | int
    ) -> bool:
        query = update(idempotency_keys).where(_held(attempt))
        kept = self._after(self.bounds.kept)
        return (
            await connection.execute(query.values(state=state, until_ms=kept, **values))
        ).rowcount == 1

    async def _row(
        self, connection: AsyncConnection, attempt: Attempt
    ) -> Row[tuple[object, ...]] | None:
        query = select(idempotency_keys).where(_at(attempt.tenant, attempt.digest))
        return (await connection.execute(query)).one_or_none()

    def _known(self, attempt: Attempt, row: Row[tuple[object, ...]]) -> KeptAnswer:
        if row.fingerprint != attempt.fingerprint:
            raise key_reused()
        if row.state == PENDING:
            raise in_flight(timedelta(milliseconds=row.until_ms - self._now()))
        if row.state == UNKEPT:
            raise not_kept()
        return KeptAnswer(
            tenant=row.tenant,
            digest=row.digest,
            attempt=row.attempt,
            request_id=row.request_id,
            status=row.status,
            headers=msgspec.json.decode(row.headers, type=tuple[tuple[str, str], ...]),
            size=row.size,
        )

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _after(self, span: timedelta) -> int:
        return self._now() + int(span.total_seconds() * 1000)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as err:
            raise Unavailable("The database can't be reached now.", retry_after=_RETRY) from err


def _at(tenant: str, digest: bytes) -> ColumnElement[bool]:
    return and_(_keys.tenant == tenant, _keys.digest == digest)


def _held(attempt: Attempt) -> ColumnElement[bool]:
    """The key's row, while it still belongs to `attempt`."""
    mine = and_(_keys.attempt == attempt.id, _keys.state == PENDING)
    return and_(_at(attempt.tenant, attempt.digest), mine)
