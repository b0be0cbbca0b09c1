"""Small answers for `Idempotency-Key` stand beside their keys; large ones keep their pieces."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; what is kept in pieces is read from there until it is forgotten."""
    op.add_column("idempotency_keys", sa.Column("body", sa.LargeBinary))


def downgrade() -> None:
    """Drops it, and makes pieces of what stands in it."""
    op.execute(
        "INSERT INTO idempotency_pieces (tenant, digest, number, data)"
        " SELECT tenant, digest, 0, body FROM idempotency_keys WHERE length(body) > 0"
    )
    op.drop_column("idempotency_keys", "body")
