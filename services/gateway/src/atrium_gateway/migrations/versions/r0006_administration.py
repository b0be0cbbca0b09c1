"""The audit log, tenants that are being deleted, and row-level security."""

import sqlalchemy as sa
from alembic import op

from atrium_gateway.migrations.isolation import expose, isolate, make_role, share

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TENANTS_OWN = {
    "tenants": "SELECT, INSERT, UPDATE",
    "api_keys": "SELECT, INSERT, UPDATE",
    "tenant_limits": "SELECT, INSERT, UPDATE, DELETE",
    "usage_events": "SELECT",
    "usage_hourly": "SELECT",
    "usage_daily": "SELECT",
    "audit_entries": "SELECT, INSERT",
    "tenant_deletions": "",
}
"""Tables of tenants, and what their scope may do there."""
_SHARED = {
    "directory_version": "SELECT, UPDATE",
    "plans": "SELECT",
    "plan_limits": "SELECT",
    "price_book": "SELECT",
}

_REFUSE = """
CREATE FUNCTION atrium_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'audit entries are never changed';
END
$$
"""


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _text(name: str, length: int, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=nullable)


def _tables() -> None:
    op.create_table(
        "audit_entries",
        _text("id", 36),
        _time("at"),
        _text("tenant", 64, nullable=True),
        _text("actor", 200),
        _text("actor_tenant", 64, nullable=True),
        _text("actor_key", 32, nullable=True),
        _text("action", 32),
        _text("target", 500),
        _text("request_id", 128),
        sa.Column("before", sa.Text),
        sa.Column("after", sa.Text),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entries")),
    )
    op.create_index(op.f("ix_audit_entries_tenant_id"), "audit_entries", ["tenant", "id"])
    op.create_table(
        "tenant_deletions",
        _text("tenant", 64),
        _text("alias", 64),
        _text("step", 32),
        _time("started_at"),
        _time("finished_at", nullable=True),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_tenant_deletions")),
    )


def _append_only() -> None:
    """Makes the database itself refuse to alter what the audit log says."""
    if op.get_context().dialect.name != "postgresql":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_entries_no_{change.lower()} "
                f"BEFORE {change} ON audit_entries "
                "BEGIN SELECT RAISE(ABORT, 'audit entries are never changed'); END"
            )
        return
    op.execute(_REFUSE)
    op.execute(
        "CREATE TRIGGER audit_entries_append_only "
        "BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entries "
        "FOR EACH STATEMENT EXECUTE FUNCTION atrium_refuse_change()"
    )


def upgrade() -> None:
    """Makes the tables and hides each tenant's rows from the others."""
    _tables()
    _append_only()
    make_role()
    for table, allowed in _TENANTS_OWN.items():
        isolate(table, column="id" if table == "tenants" else "tenant", allow=allowed)
    for table, allowed in _SHARED.items():
        share(table, allow=allowed)


def downgrade() -> None:
    """Drops the tables, and lets everyone see what is left."""
    for table in (*_TENANTS_OWN, *_SHARED):
        expose(table)
    op.drop_table("tenant_deletions")
    op.drop_table("audit_entries")
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP FUNCTION atrium_refuse_change")
