"""Answers that are replayed for the same Idempotency-Key."""

import sqlalchemy as sa
from alembic import op

from atrium_gateway.migrations.isolation import isolate

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def _key() -> tuple[sa.Column[str], sa.Column[bytes]]:
    return (
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
    )


def upgrade() -> None:
    """Makes the tables of keys, of answers' pieces, and of what each tenant has."""
    op.create_table(
        "idempotency_keys",
        *_key(),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sa.Column("attempt", sa.String(36), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("headers", sa.Text),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "digest", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_until_ms"), "idempotency_keys", ["until_ms"])
    op.create_table(
        "idempotency_pieces",
        *_key(),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "digest", "number", name=op.f("pk_idempotency_pieces")),
        sa.ForeignKeyConstraint(
            ["tenant", "digest"],
            ["idempotency_keys.tenant", "idempotency_keys.digest"],
            name=op.f("fk_idempotency_pieces_key"),
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "idempotency_totals",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("held", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_idempotency_totals")),
    )
    for table in ("idempotency_keys", "idempotency_pieces", "idempotency_totals"):
        isolate(table)


def downgrade() -> None:
    """Drops them; keys of the last day are new again."""
    for table in ("idempotency_totals", "idempotency_pieces", "idempotency_keys"):
        op.drop_table(table)
