"""The hourly roll-ups sum the devices' time, too; those there are get it from the events."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_FILL = """
UPDATE usage_hourly SET inference_ms = COALESCE((
    SELECT SUM(usage_events.inference_ms) FROM usage_events
    WHERE usage_events.tenant = usage_hourly.tenant
      AND usage_events.capability = usage_hourly.capability
      AND usage_events.model = usage_hourly.model
      AND usage_events.started_ms >= usage_hourly.hour * 3600000
      AND usage_events.started_ms < (usage_hourly.hour + 1) * 3600000
), 0)
"""


def upgrade() -> None:
    """Adds the column and fills it."""
    column = sa.Column("inference_ms", sa.BigInteger, nullable=False, server_default="0")
    with op.batch_alter_table("usage_hourly") as table:
        table.add_column(column)
    op.execute(_FILL)
    with op.batch_alter_table("usage_hourly") as table:
        table.alter_column("inference_ms", server_default=None)


def downgrade() -> None:
    """Drops the column."""
    with op.batch_alter_table("usage_hourly") as table:
        table.drop_column("inference_ms")
