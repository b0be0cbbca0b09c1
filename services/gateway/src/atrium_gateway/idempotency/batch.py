"""A batch of operations as one transaction, whatever becomes of them; `store.py` runs it.

What is kept of their keys is read, the operations are done on that, one after the other, and
what has changed is written. Nobody else changes these tenants' keys meanwhile (`COUNT`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import msgspec

from atrium_gateway.idempotency import statements as sql
from atrium_gateway.idempotency.domain import (
    Attempt,
    Bounds,
    KeptAnswer,
    in_flight,
    key_reused,
    keys_exhausted,
    not_kept,
)
from atrium_gateway.idempotency.operation import (
    ANSWERED,
    INLINE_BYTES,
    PENDING,
    UNKEPT,
    Key,
    Kind,
    Operation,
    Outcome,
    Row,
    key_of,
    pending,
)
from atrium_gateway.idempotency.recorder import Recorder
from atrium_gateway.idempotency.statements import Statements, Value

_PIECES_BYTES: Final = 1 << 20
"""Bytes of answers that one statement takes."""


@dataclass(slots=True)
class _Totals:
    """What a tenant has: keys, and bytes of answers."""

    held: int
    size: int


class Batch:
    """Operations that are done together.

    Args:
        statements: In a transaction; the caller commits.
        bounds: How much is kept, and for how long.
        now: Unix milliseconds.
    """

    def __init__(self, statements: Statements, bounds: Bounds, *, now: int) -> None:
        self._statements = statements
        self._bounds = bounds
        self._now = now
        self._totals: dict[str, _Totals] = {}
        self._rows: dict[Key, Row] = {}
        self._gone: set[Key] = set()
        self._changed: set[Key] = set()
        self._bodies: dict[Key, Recorder] = {}

    def run(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Does all of them; gives their outcomes in their order.

        What ends makes room for what begins in the same batch.
        """
        tenants = sorted({operation.attempt.tenant for operation in operations})
        counted = self._statements.run(sql.COUNT, [(tenant, 0, 0) for tenant in tenants])
        before = {tenant: (held, size) for tenant, held, size in counted.fetchall()}
        self._totals = {tenant: _Totals(*totals) for tenant, totals in before.items()}
        keys = sorted({key_of(operation.attempt) for operation in operations})
        for found in self._statements.run(sql.FIND, keys).fetchall():
            row = Row._make(found)._replace(digest=bytes(found[1]), fingerprint=bytes(found[2]))
            self._rows[row.tenant, row.digest] = row
        outcomes: dict[Operation, Outcome] = {}
        for operation in sorted(operations, key=lambda each: each.kind is Kind.CLAIM):
            if operation.kind is Kind.CLAIM:
                outcomes[operation] = self._claim(operation.attempt)
            else:
                outcomes[operation] = self._change(operation)
        self._write()
        changes = (
            (tenant, now.held - before[tenant][0], now.size - before[tenant][1])
            for tenant, now in self._totals.items()
        )
        if changed := [change for change in changes if change[1] or change[2]]:
            self._statements.run(sql.COUNT, changed)
        return [outcomes[operation] for operation in operations]

    def _claim(self, attempt: Attempt) -> Outcome:
        key = key_of(attempt)
        row = self._rows.get(key)
        if row is not None and row.until_ms <= self._now:
            self._drop(row)
            row = None
        if row is None:
            totals = self._totals[attempt.tenant]
            if totals.held >= self._bounds.tenant_keys:
                return keys_exhausted(self._bounds.tenant_keys)
            totals.held += 1
            self._put(pending(attempt, until_ms=self._now + self._bounds.lease_ms))
            return True
        if row.fingerprint != attempt.fingerprint:
            return key_reused()
        if row.state == PENDING:
            return in_flight(timedelta(milliseconds=row.until_ms - self._now))
        return not_kept() if row.state == UNKEPT else _kept(row)

    def _change(self, operation: Operation) -> bool:
        """Renews or ends an attempt; gives whether it had its key."""
        row = self._rows.get(key_of(operation.attempt))
        if row is None or row.attempt != operation.attempt.id or row.state != PENDING:
            return False
        if operation.kind is Kind.RELEASE:
            self._drop(row)
        elif operation.kind is Kind.RENEW:
            self._put(row._replace(until_ms=self._now + self._bounds.lease_ms))
        else:
            self._end(row._replace(until_ms=self._now + self._bounds.kept_ms), operation)
        return True

    def _end(self, row: Row, operation: Operation) -> None:
        """Keeps an answer, if there is one and room for it."""
        totals, body = self._totals[row.tenant], operation.body
        if body is None or totals.size + body.size > self._bounds.tenant_bytes:
            self._put(row._replace(state=UNKEPT))
            return
        totals.size += body.size
        self._bodies[row.tenant, row.digest] = body
        self._put(
            row._replace(
                state=ANSWERED,
                status=operation.status,
                headers=operation.headers,
                size=body.size,
            )
        )

    def _drop(self, row: Row) -> None:
        key = row.tenant, row.digest
        self._totals[row.tenant].held -= 1
        self._totals[row.tenant].size -= row.size
        del self._rows[key]
        self._changed.discard(key)
        self._gone.add(key)

    def _put(self, row: Row) -> None:
        key = row.tenant, row.digest
        self._rows[key] = row
        self._changed.add(key)

    def _write(self) -> None:
        """Writes the keys that have changed, what is new of a key behind what is gone of it."""
        if self._gone:
            self._statements.run(sql.GONE, sorted(self._gone))
        if self._changed:
            rows = [(*self._rows[key], self._inline(key)) for key in sorted(self._changed)]
            self._statements.run(sql.PUT, rows)
        pieces: list[tuple[Value, ...]] = []
        size = 0
        for key, body in self._bodies.items():
            if body.size <= INLINE_BYTES:
                continue
            for number, piece in enumerate(body.pieces()):
                pieces.append((*key, number, piece))
                size += len(piece)
                if size >= _PIECES_BYTES:
                    self._statements.run(sql.PIECES, pieces)
                    pieces, size = [], 0
        if pieces:
            self._statements.run(sql.PIECES, pieces)

    def _inline(self, key: Key) -> bytes | None:
        body = self._bodies.get(key)
        return None if body is None or body.size > INLINE_BYTES else body.whole()


def _kept(row: Row) -> KeptAnswer:
    return KeptAnswer(
        tenant=row.tenant,
        digest=row.digest,
        attempt=row.attempt,
        request_id=row.request_id,
        status=row.status or 0,
        headers=msgspec.json.decode(row.headers or "[]", type=tuple[tuple[str, str], ...]),
        size=row.size,
    )
