"""Roll-ups by everything that usage is grouped by; prices with effective dates.

The new roll-ups are summed from the events. What no event tells of any more keeps the sums
that it had, without key, user and outcome.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
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
    "inference_ms",
    "cost_nano",
)
_OLD_KEY = ("tenant", "hour", "capability", "model")
_NEW_KEY = (*_OLD_KEY, "key_id", "subject", "outcome")
_LENGTHS = {
    "tenant": 64,
    "capability": 64,
    "model": 200,
    "key_id": 32,
    "subject": 200,
    "outcome": 16,
}

_SUMMED = ", ".join(f"SUM({name})" for name in _COUNTS)
_NAMES = ", ".join(_COUNTS)
_FROM_EVENTS = f"""
INSERT INTO usage_hourly
  ({", ".join(_NEW_KEY)}, events, refunded, {_NAMES}, provider_cost_nano)
SELECT tenant, started_ms / 3600000, capability, model, COALESCE(key_id, ''), subject, outcome,
  COUNT(*), SUM(CASE WHEN outcome = 'refunded' THEN 1 ELSE 0 END), {_SUMMED}, 0
FROM usage_events
GROUP BY tenant, started_ms / 3600000, capability, model, COALESCE(key_id, ''), subject, outcome
"""  # noqa: S608 - every name in it is written above
_WITHOUT_EVENTS = f"""
INSERT INTO usage_hourly
  ({", ".join(_NEW_KEY)}, events, refunded, {_NAMES}, provider_cost_nano)
SELECT tenant, hour, capability, model, '', '', 'completed',
  requests + refunded, refunded, {_NAMES}, 0
FROM usage_hourly_before
WHERE NOT EXISTS (
  SELECT 1 FROM usage_hourly
  WHERE usage_hourly.tenant = usage_hourly_before.tenant
    AND usage_hourly.hour = usage_hourly_before.hour
    AND usage_hourly.capability = usage_hourly_before.capability
    AND usage_hourly.model = usage_hourly_before.model
)
"""  # noqa: S608 - every name in it is written above
_DAYS = f"""
INSERT INTO usage_daily
  (tenant, day, {", ".join(_NEW_KEY[2:])}, events, refunded, {_NAMES}, provider_cost_nano)
SELECT tenant, hour / 24, {", ".join(_NEW_KEY[2:])},
  SUM(events), SUM(refunded), {_SUMMED}, SUM(provider_cost_nano)
FROM usage_hourly GROUP BY tenant, hour / 24, {", ".join(_NEW_KEY[2:])}
"""  # noqa: S608 - every name in it is written above
_BACK = f"""
INSERT INTO usage_hourly ({", ".join(_OLD_KEY)}, refunded, {_NAMES})
SELECT {", ".join(_OLD_KEY)}, SUM(refunded), {_SUMMED}
FROM usage_hourly_before GROUP BY {", ".join(_OLD_KEY)}
"""  # noqa: S608 - every name in it is written above


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _put_aside() -> None:
    """Renames the table; PostgreSQL wants the name of its key to be free, too."""
    op.rename_table("usage_hourly", "usage_hourly_before")
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            "ALTER TABLE usage_hourly_before "
            "RENAME CONSTRAINT pk_usage_hourly TO pk_usage_hourly_before"
        )


def _make(name: str, key: tuple[str, ...], numbers: tuple[str, ...]) -> None:
    op.create_table(
        name,
        *(
            sa.Column(part, sa.String(_LENGTHS[part]), nullable=False)
            if part in _LENGTHS
            else _number(part)
            for part in key
        ),
        *(_number(number) for number in numbers),
        sa.PrimaryKeyConstraint(*key, name=op.f(f"pk_{name}")),
    )


def upgrade() -> None:
    """Splits the roll-ups further, by days, too; gives prices a model and costs."""
    _put_aside()
    sums = ("events", "refunded", *_COUNTS, "provider_cost_nano")
    _make("usage_hourly", _NEW_KEY, sums)
    op.execute(_FROM_EVENTS)
    op.execute(_WITHOUT_EVENTS)
    _make("usage_daily", ("tenant", "day", *_NEW_KEY[2:]), sums)
    op.execute(_DAYS)
    op.drop_table("usage_hourly_before")
    op.add_column(
        "usage_events",
        sa.Column("provider_cost_nano", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.add_column("price_book", sa.Column("model", sa.String(200)))
    op.add_column("price_book", sa.Column("costs", sa.Text, nullable=False, server_default="{}"))


def downgrade() -> None:
    """Joins the roll-ups again; prices that an operator set are forgotten."""
    op.drop_table("usage_daily")
    op.execute("DELETE FROM price_book WHERE model IS NOT NULL")
    for table, column in (
        ("price_book", "costs"),
        ("price_book", "model"),
        ("usage_events", "provider_cost_nano"),
    ):
        with op.batch_alter_table(table) as altered:
            altered.drop_column(column)
    _put_aside()
    _make("usage_hourly", _OLD_KEY, ("refunded", *_COUNTS))
    op.execute(_BACK)
    op.drop_table("usage_hourly_before")
