"""The statements of `batch.py`: each for any number of rows, in the words of both databases.

They are text, for the building of statements costs more than what these do. A list of rows
is a `VALUES`, so that each is one call whatever the size of the batch.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

from sqlalchemy import Connection, Row

Value = str | int | bytes | None
Values = Sequence[Value]

CLAIM: Final = (
    "INSERT INTO idempotency_keys"
    " (tenant, digest, fingerprint, attempt, request_id, state, until_ms, size) VALUES {rows}"
    " ON CONFLICT (tenant, digest) DO NOTHING RETURNING tenant, digest"
)
FIND: Final = (
    "SELECT tenant, digest, fingerprint, attempt, request_id, state, until_ms, status, headers,"
    " size FROM idempotency_keys WHERE (tenant, digest) IN (VALUES {rows})"
)
END: Final = (
    "DELETE FROM idempotency_keys WHERE until_ms <= {0} AND (tenant, digest) IN (VALUES {rows})"
    " RETURNING tenant, digest, size"
)
ANSWER: Final = (
    "WITH given (t, d, a, code, head, bytes) AS (VALUES {rows}) UPDATE idempotency_keys"
    " SET state = 'answered', until_ms = {1}, status = given.code, headers = given.head,"
    " size = given.bytes FROM given WHERE tenant = given.t AND digest = given.d"
    " AND attempt = given.a AND state = 'pending' RETURNING attempt"
)
FORGO: Final = (
    "UPDATE idempotency_keys SET state = 'unkept', until_ms = {0}"
    " WHERE (tenant, digest, attempt) IN (VALUES {rows}) AND state = 'pending' RETURNING attempt"
)
RENEW: Final = (
    "UPDATE idempotency_keys SET until_ms = {0}"
    " WHERE (tenant, digest, attempt) IN (VALUES {rows}) AND state = 'pending' RETURNING attempt"
)
RELEASE: Final = (
    "DELETE FROM idempotency_keys"
    " WHERE (tenant, digest, attempt) IN (VALUES {rows}) AND state = 'pending' RETURNING attempt"
)
EMPTY: Final = (
    "UPDATE idempotency_keys SET state = 'unkept', status = NULL, headers = NULL, size = 0"
    " WHERE (tenant, digest, attempt) IN (VALUES {rows})"
)
PIECES: Final = "INSERT INTO idempotency_pieces (tenant, digest, number, data) VALUES {rows}"
COUNT: Final = (
    "INSERT INTO idempotency_totals (tenant, held, bytes) VALUES {rows}"
    " ON CONFLICT (tenant) DO UPDATE SET held = idempotency_totals.held + excluded.held,"
    " bytes = idempotency_totals.bytes + excluded.bytes RETURNING tenant, held, bytes"
)


class Statements:
    """Runs them over one connection.

    Args:
        connection: In a transaction.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._mark = "?" if connection.dialect.name == "sqlite" else "%s"

    def run(
        self, statement: str, rows: Iterable[Values], *before: Value, after: Values = ()
    ) -> Sequence[Row[tuple[Value, ...]]]:
        """Runs a statement over rows; nothing if there are none.

        Args:
            statement: One of this file's.
            rows: What stands in its `VALUES`, all of one length.
            before: What it has before the rows, as ``{0}``.
            after: What it has behind them, as ``{1}``.

        Returns:
            What it gives back; nothing of a statement that gives nothing.
        """
        rows = list(rows)
        if not rows:
            return ()
        row = f"({', '.join([self._mark] * len(rows[0]))})"
        text = statement.format(self._mark, self._mark, rows=", ".join([row] * len(rows)))
        done = self._connection.exec_driver_sql(text, (*before, *chain.from_iterable(rows), *after))
        return done.fetchall() if done.returns_rows else ()
