"""Days and months of tenants' own time zones; what is kept of tenants, and of late events.

Days were Unix days. They become the Unix ms of their beginning, in UTC until the gateway has
moved them to the tenant's zone.
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from atrium_gateway.migrations.isolation import expose, isolate

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_DAY_MS = 86_400_000
_TEXTS = {
    "tenant": 64,
    "capability": 64,
    "model": 200,
    "key_id": 32,
    "subject": 200,
    "outcome": 16,
}
_KEY = ("tenant", "month", "capability", "model", "key_id", "subject", "outcome")
_SUMS = (
    "events",
    "refunded",
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
    "inference_ms",
    "cost_nano",
    "provider_cost_nano",
)
_MONTH = f"""
INSERT INTO usage_monthly ({", ".join((*_KEY, *_SUMS))})
SELECT tenant, {{first}}, {", ".join(_KEY[2:])}, {", ".join(f"SUM({name})" for name in _SUMS)}
FROM usage_daily WHERE day >= {{first}} AND day < {{beyond}}
GROUP BY tenant, {", ".join(_KEY[2:])}
"""  # noqa: S608 - every name in it is written above


def _column(name: str) -> sa.Column[str] | sa.Column[int]:
    if name in _TEXTS:
        return sa.Column(name, sa.String(_TEXTS[name]), nullable=False)
    return sa.Column(name, sa.BigInteger, nullable=False)


def _fill_months() -> None:
    connection = op.get_bind()
    first, last = connection.execute(sa.text("SELECT MIN(day), MAX(day) FROM usage_daily")).one()
    while first is not None and first <= last:
        day = datetime.fromtimestamp(first // 1000, UTC)
        following, month = divmod(day.year * 12 + day.month, 12)
        start = int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp()) * 1000
        beyond = int(datetime(following, month + 1, 1, tzinfo=UTC).timestamp()) * 1000
        op.execute(_MONTH.format(first=start, beyond=beyond))
        first = beyond


def upgrade() -> None:
    """Makes the tables, and months of the days."""
    op.execute(f"UPDATE usage_daily SET day = day * {_DAY_MS}")  # noqa: S608
    op.create_table(
        "usage_monthly",
        *map(_column, (*_KEY, *_SUMS)),
        sa.PrimaryKeyConstraint(*_KEY, name=op.f("pk_usage_monthly")),
    )
    _fill_months()
    op.create_table(
        "ledger_tenants",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("zone", sa.String(64), nullable=False, server_default="UTC"),
        sa.Column("alias", sa.String(64)),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_ledger_tenants")),
    )
    op.create_table(
        "ledger_marks",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_ledger_marks")),
    )
    op.create_table(
        "ledger_late",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("started_ms", sa.BigInteger, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_late")),
    )
    isolate("usage_monthly", allow="SELECT")
    isolate("ledger_tenants", allow="SELECT")
    isolate("ledger_late")


def downgrade() -> None:
    """Drops them, and sums days of UTC from the hours again."""
    for table in ("usage_monthly", "ledger_tenants"):
        expose(table)
    for table in ("usage_monthly", "ledger_tenants", "ledger_marks", "ledger_late"):
        op.drop_table(table)
    named = ("tenant", "hour / 24", *_KEY[2:])
    sums = ", ".join(f"SUM({name})" for name in _SUMS)
    op.execute("DELETE FROM usage_daily")
    op.execute(
        f"INSERT INTO usage_daily ({', '.join(('tenant', 'day', *_KEY[2:], *_SUMS))}) "  # noqa: S608
        f"SELECT {', '.join(named)}, {sums} FROM usage_hourly GROUP BY {', '.join(named)}"
    )
