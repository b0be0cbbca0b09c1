"""Keys and answers in the database, for all replicas; SQLite and PostgreSQL alike.

A request takes its key before it runs, and its answer is kept before its last byte leaves:
two writes, each durable before anything follows from it, so that a process may be killed at
any line. What requests ask is gathered and done by one thread, a batch in one transaction.
Most batches read nothing but totals (`ordinary.py`); where it turns out that a key was there,
was lost, or has no room, the batch is done again with care (`batch.py`).
What is rare (replays, sweeps, a tenant's end) goes its own way.

Whoever changes a tenant's keys first holds its row of totals, so that gateways over one
database take turns by tenant. SQLite has one writer at a time anyway.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import msgspec
from sqlalchemy import and_, delete, func, outerjoin, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from atrium_common.errors import AtriumError, Unavailable
from atrium_gateway.database import open_blocking
from atrium_gateway.idempotency import ordinary
from atrium_gateway.idempotency.batch import Batch
from atrium_gateway.idempotency.domain import Attempt, Bounds, KeptAnswer
from atrium_gateway.idempotency.forgetting import forget
from atrium_gateway.idempotency.gathering import Gathering
from atrium_gateway.idempotency.operation import Kind, Operation, Outcome
from atrium_gateway.idempotency.recorder import Recorder
from atrium_gateway.idempotency.statements import Line
from atrium_gateway.idempotency.tables import (
    idempotency_keys,
    idempotency_pieces,
    idempotency_totals,
)

Ending = asyncio.Future[Outcome]
"""Tells whether an attempt had its key still; raises `Unavailable` if the database is away.

What was asked for is done, whether somebody waits for it or not."""

SWEPT_AT_ONCE = 200
_PAUSE_SECONDS = 0.002
_LONGEST_PAUSE_SECONDS = 0.032
_RETRY = timedelta(seconds=2)
_DEADLOCK = "40P01"
_keys, _pieces, _totals = idempotency_keys.c, idempotency_pieces.c, idempotency_totals.c
_of_key = and_(_pieces.tenant == _keys.tenant, _pieces.digest == _keys.digest)


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
        self._line = Line(self._blocking)
        self._running = 0
        self._gathering = Gathering[Operation, Outcome](
            self._run, size=lambda operation: operation.size, pause=self._pause
        )

    async def close(self) -> None:
        """Finishes what was asked for; nothing may be asked for any more."""
        await self._gathering.close(self._line.close)

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
        self._running += 1
        future = self._gathering.add(Operation(kind=Kind.CLAIM, attempt=attempt))
        try:
            found = await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(lambda done: self._abandon(attempt, done))
            raise
        except AtriumError:
            self._running -= 1
            raise
        if not isinstance(found, KeptAnswer):
            return None
        self._running -= 1
        return found

    def keep(
        self, attempt: Attempt, *, status: int, headers: tuple[tuple[str, str], ...], body: Recorder
    ) -> Ending:
        """Stores an answer and closes the attempt.

        An answer that is over a bound is not stored, as with `forgo`.
        """
        if body.over:
            return self.forgo(attempt)
        text = msgspec.json.encode(headers).decode()
        return self._end(
            Operation(kind=Kind.ANSWER, attempt=attempt, status=status, headers=text, body=body)
        )

    def forgo(self, attempt: Attempt) -> Ending:
        """Closes the attempt without its answer: a repeat is told so, and does not run."""
        return self._end(Operation(kind=Kind.FORGO, attempt=attempt))

    def release(self, attempt: Attempt) -> Ending:
        """Gives the key back: the next request with it is new."""
        return self._end(Operation(kind=Kind.RELEASE, attempt=attempt))

    def renew(self, attempt: Attempt) -> Ending:
        """Lengthens the lease."""
        return self._gathering.add(Operation(kind=Kind.RENEW, attempt=attempt))

    async def pieces(self, answer: KeptAnswer) -> AsyncIterator[bytes]:
        """Gives the body of a kept answer.

        Raises:
            Unavailable: The database is away, or the answer has just been forgotten.
        """
        number = sent = 0
        while sent < answer.size:
            of_answer = and_(
                _keys.tenant == answer.tenant,
                _keys.digest == answer.digest,
                _keys.attempt == answer.attempt,
            )
            piece_of_key = _of_key & (_pieces.number == number)
            both = outerjoin(idempotency_keys, idempotency_pieces, piece_of_key)
            query = select(func.coalesce(_keys.body, _pieces.data)).select_from(both)
            async with self._transaction() as connection:
                piece = await connection.scalar(query.where(of_answer))
            if piece is None:
                raise Unavailable("The kept answer is not there any more.")
            yield piece
            number += 1
            sent += len(piece)

    async def sweep(self, *, at_once: int = SWEPT_AT_ONCE) -> int:
        """Forgets some of what has ended; gives how many keys, 0 if none is left."""
        ended = _keys.until_ms <= self._now()
        some = select(_keys.tenant, _keys.digest).where(ended).limit(at_once)
        async with self._transaction() as connection:
            found = (await connection.execute(some)).all()
            for tenant in sorted({row.tenant for row in found}):
                of_tenant = update(idempotency_totals).where(_totals.tenant == tenant)
                # As in a batch: the totals first, then the keys.
                await connection.execute(of_tenant.values(held=_totals.held))
                mine = and_(
                    _keys.tenant == tenant,
                    _keys.digest.in_([row.digest for row in found if row.tenant == tenant]),
                    ended,
                )
                query = delete(idempotency_keys).where(mine).returning(_keys.size)
                sizes = (await connection.scalars(query)).all()
                held, size = _totals.held - len(sizes), _totals.bytes - sum(sizes)
                await connection.execute(of_tenant.values(held=held, bytes=size))
        return len(found)

    async def forget(self, tenant: str) -> None:
        """Removes everything of a tenant."""
        async with self._transaction() as connection:
            await forget(connection, tenant)

    def _end(self, operation: Operation) -> Ending:
        self._running -= 1
        return self._gathering.add(operation)

    def _abandon(self, attempt: Attempt, done: Ending) -> None:
        """Gives a key back that nobody waits for any more."""
        if done.exception() is None and done.result() is True:
            self.release(attempt)
        else:
            self._running -= 1

    def _pause(self) -> float:
        """A lone caller hardly waits; the more requests have keys, the more share a commit."""
        return min(_PAUSE_SECONDS * max(self._running, 1), _LONGEST_PAUSE_SECONDS)

    def _run(self, operations: Sequence[Operation]) -> Sequence[Outcome]:
        """Does a batch in one transaction; one that spoils it does not spoil the others."""
        errors = (SQLAlchemyError, OSError, self._blocking.dialect.loaded_dbapi.Error)
        try:
            return self._do(operations, now=self._now())
        except errors as err:
            if len(operations) == 1 or self._is_away(err):
                return [_unavailable(err) for _ in operations]
        return [outcome for each in operations for outcome in self._run([each])]

    def _do(self, operations: Sequence[Operation], *, now: int) -> Sequence[Outcome]:
        with suppress(ordinary.UnusualError):
            if all(map(ordinary.is_likely, operations)):
                with self._line.transaction() as statements:
                    ordinary.run(statements, operations, self.bounds, now=now)
                return [True] * len(operations)
        with self._line.transaction() as statements:
            return Batch(statements, self.bounds, now=now).run(operations)

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
