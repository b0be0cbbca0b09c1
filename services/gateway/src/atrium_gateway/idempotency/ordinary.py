"""The ordinary batch: keys that are new, answers for requests that have theirs, room for all.

Nothing is read but the totals. Whether the batch was one shows in how many rows it changed.
If not, nothing is done, and `batch.py` does the operations instead.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from atrium_gateway.idempotency import statements as sql
from atrium_gateway.idempotency.domain import Bounds
from atrium_gateway.idempotency.operation import INLINE_BYTES, Kind, Operation
from atrium_gateway.idempotency.statements import Statements, Values

_KINDS: Final = frozenset({Kind.CLAIM, Kind.ANSWER})


class UnusualError(Exception):
    """An operation of the batch does not end as most do."""


def is_likely(operation: Operation) -> bool:
    """Whether an ordinary batch may have it."""
    return operation.kind in _KINDS and operation.size <= INLINE_BYTES


def run(
    statements: Statements, operations: Sequence[Operation], bounds: Bounds, *, now: int
) -> None:
    """Does all of them.

    Args:
        statements: In a transaction; the caller commits.
        operations: One at least, all of which `is_likely`.
        bounds: How much is kept, and for how long.
        now: Unix milliseconds.

    Raises:
        UnusualError: Not all of them could be done; the caller rolls back.
    """
    changes: dict[str, list[int]] = {}
    claims: list[Values] = []
    answers: list[Values] = []
    for each in operations:
        mine = each.attempt
        change = changes.setdefault(mine.tenant, [0, 0])
        if each.kind is Kind.CLAIM:
            change[0] += 1
            claims.append((mine.tenant, mine.digest, mine.fingerprint, mine.id, mine.request_id))
        else:
            change[1] += each.size
            body = each.body.whole() if each.body else b""
            given = (each.status, each.headers, each.size, body)
            answers.append((mine.tenant, mine.digest, mine.id, *given))
    totals = [(tenant, held, size) for tenant, (held, size) in sorted(changes.items())]
    do = _in_steps if statements.sqlite else _at_once
    leased, kept = now + bounds.lease_ms, now + bounds.kept_ms
    held, size, done = do(statements, totals, claims, answers, leased=leased, kept=kept)
    if held > bounds.tenant_keys or size > bounds.tenant_bytes or done != len(operations):
        raise UnusualError


def _in_steps(
    statements: Statements,
    totals: Sequence[Values],
    claims: Sequence[Values],
    answers: Sequence[Values],
    *,
    leased: int,
    kept: int,
) -> tuple[int, int, int]:
    """Gives the most keys and bytes of a tenant, and how many keys were changed."""
    counted = statements.run(sql.COUNT, totals).fetchall()
    done = 0
    if claims:
        done += statements.run(sql.CLAIM, claims, before=(leased,)).rowcount
    if answers:
        done += statements.run(sql.ANSWER, answers, before=(kept,)).rowcount
    return max(row[1] for row in counted), max(row[2] for row in counted), done


def _at_once(
    statements: Statements,
    totals: Sequence[Values],
    claims: Sequence[Values],
    answers: Sequence[Values],
    *,
    leased: int,
    kept: int,
) -> tuple[int, int, int]:
    """The same in one statement, where each is a round trip."""
    counts, claimed, answered = (
        msgspec.json.encode(rows).decode() for rows in (totals, claims, answers)
    )
    given = (counts, leased, claimed, kept, answered)
    held, size, done = statements.execute(sql.ALL_AT_ONCE, given).fetchall()[0]
    return held, size, done
