"""Keys and answers in the database, for all replicas; SQLite and PostgreSQL alike.

What requests ask is gathered and done by one thread, a batch in one transaction; what is
rare (replays, sweeps, a tenant's end) goes its own way.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import msgspec
from sqlalchemy import and_, delete, select, tuple_, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from atrium_common.errors import AtriumError, Unavailable
from atrium_gateway.database import open_blocking
from atrium_gateway.idempotency.batch import Again, Batch, Kind, Operation, Outcome
from atrium_gateway.idempotency.domain import Attempt, Bounds, KeptAnswer
from atrium_gateway.idempotency.forgetting import forget
from atrium_gateway.idempotency.gathering import Gathering
from atrium_gateway.idempotency.recorder import Recorder
from atrium_gateway.idempotency.statements import transaction
from atrium_gateway.idempotency.tables import (
    idempotency_keys,
    idempotency_pieces,
    idempotency_totals,
)

SWEPT_AT_ONCE = 200
_RETRY = timedelta(seconds=2)
_DEADLOCK = "40P01"
_keys, _pieces, _totals = idempotency_keys.c, idempotency_pieces.c, idempotency_totals.c


class AnswerStore:
    """Says of a key whether its request is new, and keeps the answer.

    Args:
        engine: The database, upgraded.
        bounds: How much is kept, and for how long.
        clock: Returns Unix seconds; threads call it, too.
    """

    def __init__(self, engine: AsyncEngine, bounds: Bounds, *, clock: Callable[[], float]) -> None:
        self.bounds = bounds
        self._engine = engine
        self._clock = clock
        self._blocking = open_blocking(engine.url)
        self._gathering = Gathering[Operation, Outcome](
            self._run, size=lambda operation: operation.size
        )

    async def close(self) -> None:
        """Finishes what was asked for; nothing may be asked for any more."""
        await self._gathering.close(self._blocking.dispose)

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
            future = self._gathering.add(Operation(kind=Kind.CLAIM, attempt=attempt))
            try:
                outcome = await asyncio.shield(future)
            except asyncio.CancelledError:
                future.add_done_callback(lambda done: self._abandon(attempt, done))
                raise
            if isinstance(outcome, Again):
                continue
            if isinstance(outcome, AtriumError):
                raise outcome
            return outcome if isinstance(outcome, KeptAnswer) else None

    async def renew(self, attempt: Attempt) -> bool:
        """Lengthens the lease; gives False if the key is lost."""
        return await self._closed(Operation(kind=Kind.RENEW, attempt=attempt))

    async def keep(
        self, attempt: Attempt, *, status: int, headers: tuple[tuple[str, str], ...], body: Recorder
    ) -> bool:
        """Stores an answer and closes the attempt; gives False if it has lost its key.

        An answer that is over a bound is not stored, as with `forgo`.
        """
        if body.over:
            return await self.forgo(attempt)
        text = msgspec.json.encode(headers).decode()
        answer = Operation(
            kind=Kind.ANSWER, attempt=attempt, status=status, headers=text, body=body
        )
        return await self._closed(answer)

    async def forgo(self, attempt: Attempt) -> bool:
        """Closes the attempt without its answer: a repeat is told so, and does not run."""
        return await self._closed(Operation(kind=Kind.FORGO, attempt=attempt))

    async def release(self, attempt: Attempt) -> bool:
        """Gives the key back: the next request with it is new."""
        return await self._closed(Operation(kind=Kind.RELEASE, attempt=attempt))

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
                fewer = update(idempotency_totals).where(_totals.tenant == tenant)
                held, size = _totals.held - len(sizes), _totals.bytes - sum(sizes)
                await connection.execute(fewer.values(held=held, bytes=size))
        return len(gone)

    async def forget(self, tenant: str) -> None:
        """Removes everything of a tenant."""
        async with self._transaction() as connection:
            await forget(connection, tenant)

    async def _closed(self, operation: Operation) -> bool:
        # Cancelled or not, it is done: who waits for it is another matter.
        outcome = await self._gathering.add(operation)
        if isinstance(outcome, AtriumError):
            raise outcome
        return outcome is True

    def _abandon(self, attempt: Attempt, done: "asyncio.Future[Outcome]") -> None:
        """Gives a key back that nobody waits for any more."""
        if done.exception() is None and done.result() is True:
            self._gathering.add(Operation(kind=Kind.RELEASE, attempt=attempt))

    def _run(self, operations: Sequence[Operation]) -> Sequence[Outcome]:
        """Does a batch in one transaction; one that spoils it does not spoil the others."""
        errors = (SQLAlchemyError, OSError, self._blocking.dialect.loaded_dbapi.Error)
        try:
            with transaction(self._blocking) as statements:
                return Batch(statements, self.bounds, now=self._now()).run(operations)
        except errors as err:
            if len(operations) == 1 or self._is_away(err):
                return [_unavailable(err) for _ in operations]
        return [outcome for each in operations for outcome in self._run([each])]

    def _is_away(self, err: BaseException) -> bool:
        """Whether the database itself refuses, rather than one of many rows being at fault."""
        driver = self._blocking.dialect.loaded_dbapi
        if not isinstance(err, driver.Error):
            return True
        deadlocked = getattr(err, "sqlstate", None) == _DEADLOCK
        return isinstance(err, driver.OperationalError) and not deadlocked

    def _now(self) -> int:
        return int(self._clock() * 1000)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as err:
            raise _unavailable(err) from err


def _unavailable(err: BaseException) -> Unavailable:
    away = Unavailable("The database can't be reached now.", retry_after=_RETRY)
    away.__cause__ = err
    return away
