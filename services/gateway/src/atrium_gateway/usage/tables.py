"""Tables of the ledger: events, roll-ups by hour, day and month, and how each tenant is kept."""

from collections.abc import Sequence

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
"""Columns that a tenant is shown sums of, in events and roll-ups alike."""

SUMS = (*COUNTS, "provider_cost_nano", "events", "refunded")
"""Columns that a roll-up sums: those of events, how many events, how many refunded."""

DIMENSIONS = ("tenant", "hour", "capability", "model", "key_id", "subject", "outcome")
"""Columns that name an hourly roll-up; events have them too, but for the hour."""

DAILY_DIMENSIONS = ("tenant", "day", *DIMENSIONS[2:])
"""Columns that name a daily one."""

MONTHLY_DIMENSIONS = ("tenant", "month", *DIMENSIONS[2:])
"""Columns that name a monthly one."""

NAMELESS = tuple(name for name in DIMENSIONS if name not in ("key_id", "subject"))
"""Columns that name an hourly one of all keys and users together."""


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
    Column("provider_cost_nano", BigInteger, nullable=False, server_default="0"),
    Index("ix_usage_events_tenant_started_ms_id", "tenant", "started_ms", "id"),
)
"""One row per closed reservation and model that worked for it, never changed.

`reserved` is JSON of what was held.
"""


_LENGTHS = {
    "tenant": 64,
    "capability": 64,
    "model": 200,
    "key_id": 32,
    "subject": 200,
    "outcome": 16,
}


def _rollup(name: str, dimensions: Sequence[str]) -> Table:
    return Table(
        name,
        metadata,
        *(
            Column(
                each, String(_LENGTHS[each]) if each in _LENGTHS else BigInteger, primary_key=True
            )
            for each in dimensions
        ),
        Column("events", BigInteger, nullable=False),
        Column("refunded", BigInteger, nullable=False),
        *_counts(),
        Column("provider_cost_nano", BigInteger, nullable=False),
    )


usage_hourly = _rollup("usage_hourly", DIMENSIONS)
"""Sums of events by the hour in which they were admitted (Unix hours).

`key_id` is empty where the events have none: a part of a primary key can't be null.
"""

usage_nameless = _rollup("usage_nameless", NAMELESS)
"""The same of all keys and users together: what a tenant of many users asks for by hours."""

usage_daily = _rollup("usage_daily", DAILY_DIMENSIONS)
"""The same by days of the tenant's time zone; `day` is when it begins, Unix ms.

In which zone a tenant's days are kept, `ledger_tenants` says.
"""

usage_monthly = _rollup("usage_monthly", MONTHLY_DIMENSIONS)
"""The same by months of that zone; `month` is when it begins, Unix ms."""

ledger_tenants = Table(
    "ledger_tenants",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("zone", String(64), nullable=False, server_default="UTC"),
    Column("alias", String(64)),
)
"""How the ledger keeps a tenant; one without a row has days of UTC.

`zone` is that of its days and months, which follows the tenant's own (`rezone.py`). `alias`
takes its place in all that is written once its name is taken out of the ledger.
"""

ledger_marks = Table(
    "ledger_marks",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""What the ledger notes of itself: under `RETAINED`, since when every event is remembered."""

RETAINED = "retained_ms"
"""Mark: events admitted before it, Unix ms, may have been deleted."""

ledger_late = Table(
    "ledger_late",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("event", Text, nullable=False),
)
"""Events that came after those of their time were deleted: nothing tells whether they were
counted, so they are not, and a person decides. `event` is the line of the spool."""

price_book = Table(
    "price_book",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("prices", Text, nullable=False),
    Column("effective_from", UtcDateTime, nullable=False),
    Column("model", String(200)),
    Column("costs", Text, nullable=False, server_default="{}"),
)
"""Every price that was ever in force, and those that will be; never changed.

A row without `model` holds the whole catalogue; one with it, what an operator set for that
model alone. `prices` is what tenants are charged, `costs` what a provider charges: JSON,
model -> unit -> amount as a string.
"""
