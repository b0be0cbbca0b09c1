"""The table of tenants that are being deleted, or were."""

from sqlalchemy import Column, String, Table

from atrium_gateway.database import UtcDateTime, metadata

tenant_deletions = Table(
    "tenant_deletions",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("alias", String(64), nullable=False),
    Column("step", String(32), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
)
"""`alias` stands for the tenant in the ledger; `step` is the last one that is done."""
