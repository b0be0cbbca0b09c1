"""The statements of `ordinary.py` and `batch.py`, and the connection that they go over.

They are text in the words of both databases, for the building of statements costs more than
what these do. A list of rows is a `VALUES`, so that each is one call whatever the size of the
batch; none gives more back than it must, for each row that comes costs a turn of Python's
lock, and the event loop has it.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Final

from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.engine.interfaces import DBAPICursor

from atrium_gateway.idempotency.operation import Row

Value = str | int | bytes | None
Values = Sequence[Value]

_UNCHECKED_SECONDS: Final = 0.05
"""A connection that was used so lately is taken to live: under load nobody asks it."""


_COLUMNS: Final = ", ".join(Row._fields)
COUNT: Final = (
    "INSERT INTO idempotency_totals (tenant, held, bytes) VALUES {rows}"
    " ON CONFLICT (tenant) DO UPDATE SET held = idempotency_totals.held + excluded.held,"
    " bytes = idempotency_totals.bytes + excluded.bytes RETURNING tenant, held, bytes"
)
"""Adds to tenants' totals, and holds back every other gateway's batch of these tenants.

It is the first of a transaction, its rows in the order of tenants: who has them may read and
write these tenants' keys as if alone, and nobody waits for one who waits.
"""
CLAIM: Final = (
    "INSERT INTO idempotency_keys"
    " (tenant, digest, fingerprint, attempt, request_id, state, until_ms, size)"
    " SELECT column1, column2, column3, column4, column5, 'pending', {}, 0"
    " FROM (VALUES {rows}) AS given WHERE true ON CONFLICT (tenant, digest) DO NOTHING"
)
ANSWER: Final = (
    "UPDATE idempotency_keys SET state = 'answered', until_ms = {}, status = given.column4,"
    " headers = given.column5, size = given.column6, body = given.column7"
    " FROM (VALUES {rows}) AS given WHERE tenant = given.column1 AND digest = given.column2"
    " AND attempt = given.column3 AND state = 'pending'"
)
ALL_AT_ONCE: Final = """
WITH counted AS (
    INSERT INTO idempotency_totals (tenant, held, bytes)
    SELECT v->>0, (v->>1)::bigint, (v->>2)::bigint FROM json_array_elements(%s) AS given (v)
    ON CONFLICT (tenant) DO UPDATE SET held = idempotency_totals.held + excluded.held,
        bytes = idempotency_totals.bytes + excluded.bytes
    RETURNING held, bytes
), most AS MATERIALIZED (
    SELECT max(held) AS held, max(bytes) AS bytes FROM counted
), claimed AS (
    INSERT INTO idempotency_keys
        (tenant, digest, fingerprint, attempt, request_id, state, until_ms, size)
    SELECT v->>0, decode(v->>1, 'base64'), decode(v->>2, 'base64'), v->>3, v->>4,
        'pending', %s, 0
    FROM most, json_array_elements(%s) AS given (v)
    ON CONFLICT (tenant, digest) DO NOTHING
    RETURNING 1
), answered AS (
    UPDATE idempotency_keys SET state = 'answered', until_ms = %s, status = (v->>3)::integer,
        headers = v->>4, size = (v->>5)::bigint, body = decode(v->>6, 'base64')
    FROM most, json_array_elements(%s) AS given (v)
    WHERE tenant = v->>0 AND digest = decode(v->>1, 'base64') AND attempt = v->>2
        AND state = 'pending'
    RETURNING 1
)
SELECT held, bytes, (SELECT count(*) FROM claimed) + (SELECT count(*) FROM answered) FROM most
"""
"""`COUNT`, then `CLAIM` and `ANSWER`, for PostgreSQL: one round trip, and few parameters.

`most` stands in both of the latter, so that nothing of theirs is done before the totals are held.
"""
FIND: Final = (
    f"SELECT {_COLUMNS} FROM idempotency_keys"  # noqa: S608 - names of columns
    " WHERE (tenant, digest) IN (VALUES {rows})"
)
GONE: Final = "DELETE FROM idempotency_keys WHERE (tenant, digest) IN (VALUES {rows})"
PUT: Final = (
    f"INSERT INTO idempotency_keys ({_COLUMNS}, body) VALUES {{rows}}"  # noqa: S608 - columns
    " ON CONFLICT (tenant, digest) DO UPDATE SET state = excluded.state,"
    " until_ms = excluded.until_ms, status = excluded.status, headers = excluded.headers,"
    " size = excluded.size, body = excluded.body"
)
PIECES: Final = "INSERT INTO idempotency_pieces (tenant, digest, number, data) VALUES {rows}"


class Statements:
    """Runs them in a transaction.

    Args:
        connection: Of sqlite3 or psycopg: SQLAlchemy's own costs more than what they do.
        sqlite: Which of the two.
    """

    def __init__(self, connection: PoolProxiedConnection, *, sqlite: bool) -> None:
        self.sqlite = sqlite
        self._connection = connection

    def execute(self, statement: str, values: Values = ()) -> DBAPICursor:
        """Runs a statement as it is; gives a cursor of its own."""
        cursor = self._connection.cursor()
        cursor.execute(statement, values)
        return cursor

    def run(self, statement: str, rows: Sequence[Values], *, before: Values = ()) -> DBAPICursor:
        """Runs a statement over rows, of which there is one at least.

        Args:
            statement: One of this file's.
            rows: What stands in its `VALUES`, all of one length.
            before: What stands before them, as ``{}``.
        """
        mark = "?" if self.sqlite else "%s"
        row = f"({', '.join([mark] * len(rows[0]))})"
        text = statement.format(mark, rows=", ".join([row] * len(rows)))
        return self.execute(text, (*before, *chain.from_iterable(rows)))


class Line:
    """A thread's own connection to the database.

    Args:
        engine: As `open_blocking` makes it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sqlite = engine.dialect.name == "sqlite"
        self._connection: PoolProxiedConnection | None = None
        self._used = 0.0

    def close(self) -> None:
        """Lets go of the connection."""
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Statements]:
        """A transaction; a connection that breaks in it is not used again.

        Raises:
            SQLAlchemyError: No connection can be had.
        """
        connection = self._connect()
        statements = Statements(connection, sqlite=self._sqlite)
        try:
            # SQLite's takes the right to write at once, so that two wait for each other.
            statements.execute("BEGIN IMMEDIATE" if self._sqlite else "BEGIN")
            yield statements
            statements.execute("COMMIT")
        except BaseException as err:
            if self.is_broken(err):
                connection.invalidate(err)
                self._connection = None
            else:
                connection.rollback()
            raise

    def is_broken(self, err: BaseException) -> bool:
        """Whether a driver's error means that its connection is lost."""
        dialect = self._engine.dialect
        driver = dialect.loaded_dbapi.Error
        return isinstance(err, driver) and dialect.is_disconnect(err, None, None)

    def _connect(self) -> PoolProxiedConnection:
        """Gives the connection; the pool looks whether one that lay still is broken."""
        now = time.monotonic()
        if self._connection is not None and now - self._used > _UNCHECKED_SECONDS:
            self._connection.close()
            self._connection = None
        self._used = now
        if self._connection is None:
            self._connection = self._engine.raw_connection()
        return self._connection
