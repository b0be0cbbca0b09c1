"""Tables of the ledger: events, hourly roll-ups and the versions of the price book."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, String, Table, Text

from atrium_gateway.database import UtcDateTime, metadata

COUNTS = (
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
"""Columns that are summed, in events and roll-ups alike."""


def _counts() -> list[Column[int]]:
    return [Column(name, BigInteger, nullable=False) for name in COUNTS]


usage_events = Table(
    "usage_events",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("key_id", String(32)),
    Column("capability", String(64), nullable=False),
    Column("model", String(200), nullable=False),
    Column("method", String(200), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("engine", String(64), nullable=False),
    Column("model_digest", String(64), nullable=False),
    Column("queue_ms", BigInteger, nullable=False),
    Column("price_version", Integer, nullable=False),
    Column("reserved", Text, nullable=False),
    *_counts(),
    Index("ix_usage_events_tenant_started_ms_id", "tenant", "started_ms", "id"),
)
"""One row per closed reservation and model that worked for it, never changed.

`reserved` is JSON of what was held.
"""

usage_hourly = Table(
    "usage_hourly",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("hour", BigInteger, primary_key=True),
    Column("capability", String(64), primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("refunded", BigInteger, nullable=False),
    *_counts(),
)
"""Sums of events by the hour in which they were admitted (Unix hours)."""

price_book = Table(
    "price_book",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("prices", Text, nullable=False),
    Column("effective_from", UtcDateTime, nullable=False),
)
"""Every price book that was ever in force; `prices` is JSON, amounts are strings."""
