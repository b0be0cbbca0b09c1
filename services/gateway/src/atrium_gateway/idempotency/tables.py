"""Tables of keys, of the answers that are kept for them, and of how much each tenant has."""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)

from atrium_gateway.database import metadata

DIGEST_BYTES = 32

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("digest", LargeBinary(DIGEST_BYTES), primary_key=True),
    Column("fingerprint", LargeBinary(DIGEST_BYTES), nullable=False),
    Column("attempt", String(36), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("state", String(8), nullable=False),
    # Of a pending one the end of its lease, else when it is forgotten.
    Column("until_ms", BigInteger, nullable=False, index=True),
    Column("status", Integer),
    Column("headers", Text),
    Column("size", BigInteger, nullable=False),
    # The body, unless it is so large that it has pieces.
    Column("body", LargeBinary),
)

idempotency_pieces = Table(
    "idempotency_pieces",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("digest", LargeBinary(DIGEST_BYTES), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
    ForeignKeyConstraint(
        ["tenant", "digest"],
        ["idempotency_keys.tenant", "idempotency_keys.digest"],
        name="fk_idempotency_pieces_key",
        ondelete="CASCADE",
    ),
)
"""Large bodies, cut into pieces so that none is ever whole in memory."""

idempotency_totals = Table(
    "idempotency_totals",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("held", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
)
"""How many keys and bytes a tenant has; changed with the rows, in the same transaction."""
