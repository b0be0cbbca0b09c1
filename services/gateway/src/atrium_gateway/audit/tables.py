"""The table of the audit log; triggers of migration 0006 refuse to change or delete a row."""

from sqlalchemy import Column, Index, String, Table, Text

from atrium_gateway.database import UtcDateTime, metadata

audit_entries = Table(
    "audit_entries",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("tenant", String(64)),
    Column("actor", String(200), nullable=False),
    Column("actor_tenant", String(64)),
    Column("actor_key", String(32)),
    Column("action", String(32), nullable=False),
    Column("target", String(500), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("before", Text),
    Column("after", Text),
    Index("ix_audit_entries_tenant_id", "tenant", "id"),
)
"""`before` and `after` are JSON objects. No foreign key: entries outlive their tenant."""
