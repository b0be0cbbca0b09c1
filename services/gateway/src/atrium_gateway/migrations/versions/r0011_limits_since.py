"""When limits were set: one that was gone for a while does not go on from the count it had."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; limits that are there go on with their counts."""
    since = sa.Column("limits_since", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("tenants", since)
    since = sa.Column("since", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("tenant_limits", since)


def downgrade() -> None:
    """Drops them."""
    op.drop_column("tenant_limits", "since")
    op.drop_column("tenants", "limits_since")
