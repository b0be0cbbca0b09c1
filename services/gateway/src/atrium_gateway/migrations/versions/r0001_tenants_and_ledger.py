"""Tenants, keys, limits, the ledger, its roll-ups and the price book.

The tables are written out, not taken from the code: a revision must not change when the
code does.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_COUNTS = (
    "requests",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "characters",
    "input_audio_ms",
    "output_audio_ms",
    "images",
    "millimegapixel_steps",
    "pages",
    "cost_nano",
)


def _counts() -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTS]


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _text(name: str, length: int, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=nullable)


def _directory() -> None:
    op.create_table(
        "tenants",
        _text("id", 64),
        _text("name", 200),
        sa.Column("blocked", sa.Boolean, nullable=False),
        sa.Column("unlimited", sa.Boolean, nullable=False),
        sa.Column("weight", sa.Float, nullable=False),
        _time("created_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
    )
    op.create_table(
        "api_keys",
        _text("id", 32),
        _text("tenant", 64),
        _text("name", 200),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        _text("scopes", 1000),
        _text("roles", 1000),
        _time("created_at"),
        _time("expires_at", nullable=True),
        _time("revoked_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.ForeignKeyConstraint(
            ["tenant"], ["tenants.id"], name=op.f("fk_api_keys_tenant_tenants")
        ),
    )
    op.create_index(op.f("ix_api_keys_tenant"), "api_keys", ["tenant"])
    op.create_table(
        "tenant_limits",
        _text("tenant", 64),
        _text("capability", 64),
        _text("unit", 32),
        _text("window", 16),
        sa.Column("amount", sa.BigInteger),
        sa.PrimaryKeyConstraint(
            "tenant", "capability", "unit", "window", name=op.f("pk_tenant_limits")
        ),
        sa.ForeignKeyConstraint(
            ["tenant"], ["tenants.id"], name=op.f("fk_tenant_limits_tenant_tenants")
        ),
    )
    version = op.create_table(
        "directory_version",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_directory_version")),
    )
    op.bulk_insert(version, [{"id": 1, "version": 0}])


def _ledger() -> None:
    op.create_table(
        "usage_events",
        _text("id", 36),
        _text("tenant", 64),
        _text("subject", 200),
        _text("key_id", 32, nullable=True),
        _text("capability", 64),
        _text("model", 200),
        _text("method", 200),
        _text("request_id", 128),
        sa.Column("started_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_ms", sa.BigInteger, nullable=False),
        _text("outcome", 16),
        _text("reason", 64),
        sa.Column("estimated", sa.Boolean, nullable=False),
        _text("engine", 64),
        _text("model_digest", 64),
        sa.Column("queue_ms", sa.BigInteger, nullable=False),
        sa.Column("inference_ms", sa.BigInteger, nullable=False),
        sa.Column("price_version", sa.Integer, nullable=False),
        sa.Column("reserved", sa.Text, nullable=False),
        *_counts(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_events")),
    )
    op.create_index(
        op.f("ix_usage_events_tenant_started_ms_id"),
        "usage_events",
        ["tenant", "started_ms", "id"],
    )
    op.create_table(
        "usage_hourly",
        _text("tenant", 64),
        sa.Column("hour", sa.BigInteger, nullable=False),
        _text("capability", 64),
        _text("model", 200),
        sa.Column("refunded", sa.BigInteger, nullable=False),
        *_counts(),
        sa.PrimaryKeyConstraint(
            "tenant", "hour", "capability", "model", name=op.f("pk_usage_hourly")
        ),
    )
    op.create_table(
        "price_book",
        sa.Column("version", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("prices", sa.Text, nullable=False),
        _time("effective_from"),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_price_book")),
    )


def upgrade() -> None:
    """Makes every table."""
    _directory()
    _ledger()


def downgrade() -> None:
    """Drops every table."""
    for table in (
        "price_book",
        "usage_hourly",
        "usage_events",
        "directory_version",
        "tenant_limits",
        "api_keys",
        "tenants",
    ):
        op.drop_table(table)
