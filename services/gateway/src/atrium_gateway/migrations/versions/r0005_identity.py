"""What keys may do, from where, when they were last used, and the secret before the last."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_COLUMNS = ("models", "networks", "last_used_at", "previous_digest", "previous_until")


def upgrade() -> None:
    """Adds the columns; keys that are there may use every model from anywhere, as before."""
    # Plain ALTER TABLE: a copy of the table would drop what refers to it.
    op.add_column("api_keys", sa.Column("models", sa.Text, nullable=False, server_default=""))
    op.add_column("api_keys", sa.Column("networks", sa.Text, nullable=False, server_default=""))
    op.add_column("api_keys", sa.Column("last_used_at", sa.DateTime(timezone=True)))
    op.add_column("api_keys", sa.Column("previous_digest", sa.LargeBinary(32)))
    op.add_column("api_keys", sa.Column("previous_until", sa.DateTime(timezone=True)))


def downgrade() -> None:
    """Drops them."""
    for column in reversed(_COLUMNS):
        op.drop_column("api_keys", column)
