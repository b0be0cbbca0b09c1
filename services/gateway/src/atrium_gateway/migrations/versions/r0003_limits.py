"""Plans, time zones, and limits of tenants, keys and users."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_PLANS = (("free", "Free"), ("pro", "Pro"), ("enterprise", "Enterprise"))
"""Examples. An enterprise has what its own limits say."""
_PLAN_LIMITS = (
    ("free", "*", "requests", "minute", 10),
    ("free", "*", "tokens", "month", 100_000),
    ("pro", "*", "requests", "minute", 100),
    ("pro", "*", "tokens", "month", 1_000_000),
)
_COUNTED_BEFORE = (
    *("requests", "tokens", "audio_seconds", "characters"),
    *("images", "megapixel_steps", "pages"),
)


def _text(name: str, length: int, *, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False, server_default=default)


def _kind() -> tuple[sa.Column[str], ...]:
    return _text("selector", 210), _text("unit", 32), _text("window", 16)


def _plans() -> None:
    plans = op.create_table(
        "plans",
        _text("id", 64),
        _text("name", 200),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plans")),
    )
    limits = op.create_table(
        "plan_limits",
        _text("plan", 64),
        *_kind(),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("plan", "selector", "unit", "window", name=op.f("pk_plan_limits")),
        sa.ForeignKeyConstraint(["plan"], ["plans.id"], name=op.f("fk_plan_limits_plan_plans")),
    )
    op.bulk_insert(plans, [{"id": plan, "name": name} for plan, name in _PLANS])
    names = ("plan", "selector", "unit", "window", "amount")
    op.bulk_insert(limits, [dict(zip(names, row, strict=True)) for row in _PLAN_LIMITS])


def _limits_table(*columns: sa.Column[str]) -> sa.Table:
    return op.create_table(
        "tenant_limits",
        _text("tenant", 64),
        *columns,
        sa.Column("amount", sa.BigInteger),
        sa.PrimaryKeyConstraint(
            "tenant", *(column.name for column in columns), name=op.f("pk_tenant_limits")
        ),
        sa.ForeignKeyConstraint(
            ["tenant"], ["tenants.id"], name=op.f("fk_tenant_limits_tenant_tenants")
        ),
    )


def _stored() -> Sequence[sa.RowMapping]:
    return op.get_bind().execute(sa.text("SELECT * FROM tenant_limits")).mappings().all()


def upgrade() -> None:
    """Adds plans and their examples; limits that are there are their tenants' own."""
    _plans()
    # Plain ALTER TABLE: a copy of the table would drop what refers to it.
    op.add_column("tenants", sa.Column("plan", sa.String(64)))
    op.add_column("tenants", _text("time_zone", 64, default="UTC"))
    op.add_column("tenants", _text("fallback", 16, default="local"))
    rows = _stored()
    op.drop_table("tenant_limits")
    table = _limits_table(_text("subject", 210), *_kind())
    op.bulk_insert(
        table,
        [
            {
                "tenant": row["tenant"],
                "subject": "tenant",
                "selector": row["capability"],
                "unit": row["unit"],
                "window": row["window"],
                "amount": row["amount"],
            }
            for row in rows
        ],
    )


def downgrade() -> None:
    """Drops what could not be said before: plans, and limits of models, keys and users."""
    rows = _stored()
    op.drop_table("tenant_limits")
    table = _limits_table(_text("capability", 64), _text("unit", 32), _text("window", 16))
    op.bulk_insert(
        table,
        [
            {
                "tenant": row["tenant"],
                "capability": row["selector"],
                "unit": row["unit"],
                "window": row["window"],
                "amount": row["amount"],
            }
            for row in rows
            if row["subject"] == "tenant"
            and not row["selector"].startswith("model:")
            and row["unit"] in _COUNTED_BEFORE
        ],
    )
    for column in ("fallback", "time_zone", "plan"):
        op.drop_column("tenants", column)
    op.drop_table("plan_limits")
    op.drop_table("plans")
