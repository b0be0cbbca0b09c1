"""Tables of tenants, plans, keys and limits, and the counter that tells that they changed."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)

from atrium_gateway.database import UtcDateTime, metadata

tenants = Table(
    "tenants",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("blocked", Boolean, nullable=False),
    Column("unlimited", Boolean, nullable=False),
    Column("weight", Float, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("plan", String(64)),
    Column("time_zone", String(64), nullable=False, server_default="UTC"),
    Column("fallback", String(16), nullable=False, server_default="local"),
    Column("limits_since", BigInteger, nullable=False, server_default="0"),
)
"""`limits_since` is the directory's version when other limits than before came to hold."""

plans = Table(
    "plans",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
)

plan_limits = Table(
    "plan_limits",
    metadata,
    Column("plan", ForeignKey("plans.id"), primary_key=True),
    Column("selector", String(210), primary_key=True),
    Column("unit", String(32), primary_key=True),
    Column("window", String(16), primary_key=True),
    Column("amount", BigInteger, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", ForeignKey("tenants.id"), nullable=False, index=True),
    Column("name", String(200), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("scopes", String(1000), nullable=False),
    Column("roles", String(1000), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("models", Text, nullable=False, server_default=""),
    Column("networks", Text, nullable=False, server_default=""),
    Column("last_used_at", UtcDateTime),
    Column("previous_digest", LargeBinary(32)),
    Column("previous_until", UtcDateTime),
)

tenant_limits = Table(
    "tenant_limits",
    metadata,
    Column("tenant", ForeignKey("tenants.id"), primary_key=True),
    Column("subject", String(210), primary_key=True),
    Column("selector", String(210), primary_key=True),
    Column("unit", String(32), primary_key=True),
    Column("window", String(16), primary_key=True),
    Column("amount", BigInteger),
    Column("since", BigInteger, nullable=False, server_default="0"),
)
"""`subject` is ``tenant``, ``key:<id>`` or ``user:<sub>``; without an amount it lifts another.
`since` is the directory's version when it began to count."""

directory_version = Table(
    "directory_version",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", BigInteger, nullable=False),
)
"""One row (id 1); every change above adds one to its version in the same transaction."""

tenant_deletions = Table(
    "tenant_deletions",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("alias", String(64), nullable=False),
    Column("step", String(32), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
)
"""Tenants that are being deleted, or were: `step` is the last one that is done.

`alias` stands for the tenant in the ledger. Rows stay, so that no other tenant takes the id,
for which there may still be tokens.
"""
