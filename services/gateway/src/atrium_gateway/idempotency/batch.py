"""One batch of operations on keys as one transaction; `store.py` gathers them.

Each ends as it would alone: a bound that one of them meets refuses that one. Rows of keys
are locked before tenants' totals, and what is claimed, in the order of keys, before what is
closed: closing waits for nobody who waits, so gateways don't lock each other out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec

from atrium_common.errors import AtriumError
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
from atrium_gateway.idempotency.recorder import Recorder
from atrium_gateway.idempotency.statements import Statements, Value

PENDING, ANSWERED, UNKEPT = "pending", "answered", "unkept"
_PIECES_BYTES: Final = 1 << 20
"""Bytes of answers that one statement takes."""


class Kind(StrEnum):
    """What is asked for a key."""

    CLAIM = "claim"
    ANSWER = "answer"
    FORGO = "forgo"
    RENEW = "renew"
    RELEASE = "release"


_ENDS: Final = frozenset({Kind.ANSWER, Kind.FORGO, Kind.RELEASE})


class Again(Exception):
    """A claim's key was let go of in this moment: it is to be asked for once more."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operation:
    """What one request asks; `status`, `headers` (JSON) and `body` are an answer's."""

    kind: Kind
    attempt: Attempt
    status: int = 0
    headers: str = ""
    body: Recorder | None = None

    @property
    def size(self) -> int:
        """Bytes of the answer."""
        return 0 if self.body is None else self.body.size


Outcome = bool | KeptAnswer | AtriumError | Again
"""Of a claim whether it has the key (True), or what is there; else whether it was held."""
_Key = tuple[str, bytes]


class _Row(NamedTuple):
    """What `FIND` gives."""

    tenant: str
    digest: bytes
    fingerprint: bytes
    attempt: str
    request_id: str
    state: str
    until_ms: int
    status: int
    headers: str
    size: int


@dataclass(slots=True)
class _Change:
    """What a batch adds to a tenant's totals."""

    held: int = 0
    size: int = 0
    claims: list[Attempt] = field(default_factory=list)
    answers: list[Operation] = field(default_factory=list)


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
        self._changes: dict[str, _Change] = {}
        self._found: dict[_Key, _Row] = {}
        self._taken: set[_Key] = set()
        self._exhausted: set[_Key] = set()

    def run(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Does all of them; gives their outcomes in their order."""
        firsts: dict[_Key, Attempt] = {}
        for operation in operations:
            if operation.kind is Kind.CLAIM:
                firsts.setdefault(_key(operation.attempt), operation.attempt)
        self._claim(firsts)
        held = self._close(operations)
        self._count()
        self._store()
        return [
            self._claimed(operation.attempt, firsts[_key(operation.attempt)])
            if operation.kind is Kind.CLAIM
            else operation in held
            for operation in operations
        ]

    def _claim(self, firsts: dict[_Key, Attempt]) -> None:
        """Makes the rows of keys that are new, and takes the place of those that have ended."""
        self._insert([firsts[key] for key in sorted(firsts)])
        rest = [key for key in sorted(firsts) if key not in self._taken]
        for row in self._statements.run(sql.FIND, rest):
            self._found[_of(row)] = _Row._make(row)
        ended = [key for key in rest if self._has_ended(key)]
        for row in self._statements.run(sql.END, ended, self._now):
            self._change(row[0], held=-1, size=-row[2])
            self._insert([firsts[_of(row)]])
        for key, attempt in firsts.items():
            if key in self._taken:
                self._change(attempt.tenant, held=1).claims.append(attempt)

    def _insert(self, attempts: Sequence[Attempt]) -> None:
        until = self._after(self._bounds.lease)
        rows = [
            (*_key(each), each.fingerprint, each.id, each.request_id, PENDING, until, 0)
            for each in attempts
        ]
        self._taken |= {_of(row) for row in self._statements.run(sql.CLAIM, rows)}

    def _has_ended(self, key: _Key) -> bool:
        row = self._found.get(key)
        return row is not None and row.until_ms <= self._now

    def _close(self, operations: Sequence[Operation]) -> set[Operation]:
        """Renews and ends attempts; gives the operations that found them with their keys."""
        renewals = [each for each in operations if each.kind is Kind.RENEW]
        # Of two that end one attempt the first counts, as if they came one after the other.
        ends: dict[str, Operation] = {}
        for operation in operations:
            if operation.kind in _ENDS:
                ends.setdefault(operation.attempt.id, operation)
        of: dict[Kind, list[Operation]] = {kind: [] for kind in Kind}
        for operation in (*ends.values(), *renewals):
            of[operation.kind].append(operation)
        mine = {kind: [_mine(each.attempt) for each in some] for kind, some in of.items()}
        run, kept = self._statements.run, self._after(self._bounds.kept)
        answers = [
            (*_mine(each.attempt), each.status, each.headers, each.size) for each in of[Kind.ANSWER]
        ]
        ids = {
            Kind.ANSWER: _ids(run(sql.ANSWER, answers, after=(kept,))),
            Kind.RELEASE: _ids(run(sql.RELEASE, mine[Kind.RELEASE])),
            Kind.FORGO: _ids(run(sql.FORGO, mine[Kind.FORGO], kept)),
            Kind.RENEW: _ids(
                run(sql.RENEW, mine[Kind.RENEW], self._after(self._bounds.lease)),
            ),
        }
        held = {each for kind in ids for each in of[kind] if each.attempt.id in ids[kind]}
        for each in of[Kind.ANSWER]:
            if each in held:
                self._change(each.attempt.tenant, size=each.size).answers.append(each)
        for each in of[Kind.RELEASE]:
            if each in held:
                self._change(each.attempt.tenant, held=-1)
        return held

    def _count(self) -> None:
        """Adds to the totals; takes back what is over a bound."""
        changed = [
            (tenant, change.held, change.size)
            for tenant, change in sorted(self._changes.items())
            if change.held or change.size
        ]
        back: list[tuple[str, int, int]] = []
        for row in self._statements.run(sql.COUNT, changed):
            tenant, held, kept = row
            keys = self._refuse(self._changes[tenant], held - self._bounds.tenant_keys)
            size = self._empty(self._changes[tenant], kept - self._bounds.tenant_bytes)
            if keys or size:
                back.append((tenant, -keys, -size))
        self._statements.run(sql.COUNT, sorted(back))

    def _refuse(self, change: _Change, over: int) -> int:
        """Takes back the last claims; gives how many."""
        if over <= 0 or not change.claims:
            return 0
        refused = change.claims[-over:]
        self._exhausted |= {_key(attempt) for attempt in refused}
        self._statements.run(sql.RELEASE, [_mine(attempt) for attempt in refused])
        return len(refused)

    def _empty(self, change: _Change, over: int) -> int:
        """Does not keep the answers that have no room; gives their bytes."""
        if over <= 0 or not change.answers:
            return 0
        room = sum(answer.size for answer in change.answers) - over
        fitting, rest = [], []
        for answer in change.answers:
            if answer.size <= room:
                room -= answer.size
                fitting.append(answer)
            else:
                rest.append(answer)
        change.answers = fitting
        self._statements.run(sql.EMPTY, [_mine(answer.attempt) for answer in rest])
        return sum(answer.size for answer in rest)

    def _store(self) -> None:
        """Writes the bodies of answers that are kept."""
        rows: list[tuple[Value, ...]] = []
        size = 0
        for change in self._changes.values():
            for answer in change.answers:
                tenant, digest = _key(answer.attempt)
                pieces = answer.body.pieces() if answer.body is not None else ()
                for number, piece in enumerate(pieces):
                    rows.append((tenant, digest, number, piece))
                    size += len(piece)
                    if size >= _PIECES_BYTES:
                        self._statements.run(sql.PIECES, rows)
                        rows, size = [], 0
        self._statements.run(sql.PIECES, rows)

    def _claimed(self, attempt: Attempt, first: Attempt) -> Outcome:
        key = _key(attempt)
        if key in self._exhausted:
            return keys_exhausted(self._bounds.tenant_keys)
        if key in self._taken:
            if attempt is first:
                return True
            if attempt.fingerprint != first.fingerprint:
                return key_reused()
            return in_flight(self._bounds.lease)
        row = self._found.get(key)
        return Again() if row is None else self._known(attempt, row)

    def _known(self, attempt: Attempt, row: _Row) -> Outcome:
        if bytes(row.fingerprint) != attempt.fingerprint:
            return key_reused()
        if row.state == PENDING:
            return in_flight(timedelta(milliseconds=row.until_ms - self._now))
        if row.state == UNKEPT:
            return not_kept()
        return KeptAnswer(
            tenant=row.tenant,
            digest=bytes(row.digest),
            attempt=row.attempt,
            request_id=row.request_id,
            status=row.status,
            headers=msgspec.json.decode(row.headers, type=tuple[tuple[str, str], ...]),
            size=row.size,
        )

    def _change(self, tenant: str, *, held: int = 0, size: int = 0) -> _Change:
        change = self._changes.setdefault(tenant, _Change())
        change.held += held
        change.size += size
        return change

    def _after(self, span: timedelta) -> int:
        return self._now + int(span.total_seconds() * 1000)


def _key(attempt: Attempt) -> _Key:
    return attempt.tenant, attempt.digest


def _of(row: Sequence[Any]) -> _Key:
    return row[0], bytes(row[1])


def _mine(attempt: Attempt) -> tuple[str, bytes, str]:
    return attempt.tenant, attempt.digest, attempt.id


def _ids(rows: Sequence[Sequence[Any]]) -> set[str]:
    return {row[0] for row in rows}
