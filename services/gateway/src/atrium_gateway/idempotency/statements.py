"""The statements of `batch.py`: each for any number of rows, in the words of both databases.

They are text, for the building of statements costs more than what these do. A list of rows
is a `VALUES`, so that each is one call whatever the size of the batch.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

from sqlalchemy import Engine
from sqlalchemy.engine.interfaces import DBAPICursor

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
    """Runs them over one cursor of the driver, in a transaction.

    Args:
        cursor: Of sqlite3 or psycopg: SQLAlchemy's own costs more than what they do.
        mark: How the driver writes a parameter.
    """

    def __init__(self, cursor: DBAPICursor, mark: str) -> None:
        self._cursor = cursor
        self._mark = mark

    def run(
        self, statement: str, rows: Iterable[Values], *before: Value, after: Values = ()
    ) -> Sequence[Any]:
        """Runs a statement over rows; nothing if there are none.

        Args:
            statement: One of this file's.
            rows: What stands in its `VALUES`, all of one length.
            before: What it has before the rows, as ``{0}``.
            after: What it has behind them, as ``{1}``.

        Returns:
            The rows that it gives back, in the order of its columns; nothing of a statement
            that gives nothing.
        """
        rows = list(rows)
        if not rows:
            return ()
        row = f"({', '.join([self._mark] * len(rows[0]))})"
        text = statement.format(self._mark, self._mark, rows=", ".join([row] * len(rows)))
        self._cursor.execute(text, (*before, *chain.from_iterable(rows), *after))
        return () if self._cursor.description is None else self._cursor.fetchall()


@contextmanager
def transaction(engine: Engine) -> Iterator[Statements]:
    """A transaction on a connection of the pool; a broken one is not used again.

    Raises:
        SQLAlchemyError: No connection can be had.
    """
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        if engine.dialect.name == "sqlite":
            # Takes the right to write at once, so that two wait for each other.
            cursor.execute("BEGIN IMMEDIATE")
        yield Statements(cursor, "?" if engine.dialect.name == "sqlite" else "%s")
        connection.commit()
    except BaseException as err:
        if is_broken(engine, err):
            connection.invalidate(err)
        else:
            connection.rollback()
        raise
    finally:
        connection.close()


def is_broken(engine: Engine, err: BaseException) -> bool:
    """Whether a driver's error means that its connection is lost."""
    dialect = engine.dialect
    return isinstance(err, dialect.loaded_dbapi.Error) and dialect.is_disconnect(err, None, None)
