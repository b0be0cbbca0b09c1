"""Hours of all keys and users together, so that a large tenant's month by hours is told fast."""

import sqlalchemy as sa
from alembic import op

from atrium_gateway.migrations.isolation import expose, isolate

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TEXTS = {"tenant": 64, "capability": 64, "model": 200, "outcome": 16}
_KEY = ("tenant", "hour", "capability", "model", "outcome")
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
_FILL = f"""
INSERT INTO usage_nameless ({", ".join((*_KEY, *_SUMS))})
SELECT {", ".join(_KEY)}, {", ".join(f"SUM({name})" for name in _SUMS)}
FROM usage_hourly GROUP BY {", ".join(_KEY)}
"""  # noqa: S608 - every name in it is written above


def _column(name: str) -> sa.Column[str] | sa.Column[int]:
    if name in _TEXTS:
        return sa.Column(name, sa.String(_TEXTS[name]), nullable=False)
    return sa.Column(name, sa.BigInteger, nullable=False)


def upgrade() -> None:
    """Makes the table, and sums the hours that are there."""
    op.create_table(
        "usage_nameless",
        *map(_column, (*_KEY, *_SUMS)),
        sa.PrimaryKeyConstraint(*_KEY, name=op.f("pk_usage_nameless")),
    )
    op.execute(_FILL)
    isolate("usage_nameless", allow="SELECT")


def downgrade() -> None:
    """Drops it."""
    expose("usage_nameless")
    op.drop_table("usage_nameless")
