"""Row-level security of PostgreSQL, for the migrations that make tables of tenants.

A transaction that has taken the role `atrium_tenant` sees the rows of the tenant that its
variable `atrium.tenant` names, and none without it (`database_scope.py` does both). Whoever
owns the tables, the gateway's own background work, is exempt.
"""

from alembic import op

ROLE = "atrium_tenant"
_NAMED = "current_setting('atrium.tenant', true)"

_MAKE_ROLE = f"""
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
    BEGIN
      CREATE ROLE {ROLE} NOLOGIN;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;
    END;
  END IF;
  IF NOT pg_has_role(current_user, '{ROLE}', 'MEMBER') THEN
    GRANT {ROLE} TO CURRENT_USER;
  END IF;
  EXECUTE 'GRANT USAGE ON SCHEMA ' || quote_ident(current_schema()) || ' TO {ROLE}';
END
$$
"""


def make_role() -> None:
    """Makes the role, unless the cluster has it, and lets the gateway take it.

    Where the gateway's account may not make roles, its administrator does so before:
    ``CREATE ROLE atrium_tenant NOLOGIN; GRANT atrium_tenant TO <the gateway's account>``.
    """
    if _postgres():
        op.execute(_MAKE_ROLE)


def isolate(table: str, *, column: str = "tenant", allow: str = "") -> None:
    """Hides rows of other tenants.

    Args:
        table: Table to protect.
        column: Names the tenant that a row belongs to.
        allow: What the role may do with the rows that it sees, e.g. ``"SELECT, INSERT"``;
            nothing if empty.
    """
    if not _postgres():
        return
    mine = f"{column} = {_NAMED}"
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant_rows ON {table} USING ({mine}) WITH CHECK ({mine})")
    if allow:
        op.execute(f"GRANT {allow} ON {table} TO {ROLE}")


def share(table: str, *, allow: str) -> None:
    """Lets the role use a table that belongs to the installation."""
    if _postgres():
        op.execute(f"GRANT {allow} ON {table} TO {ROLE}")


def expose(table: str) -> None:
    """Takes back what `isolate` or `share` did; the role itself stays, others may use it."""
    if not _postgres():
        return
    op.execute(f"REVOKE ALL ON {table} FROM {ROLE}")
    op.execute(f"DROP POLICY IF EXISTS tenant_rows ON {table}")
    op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")


def _postgres() -> bool:
    return op.get_context().dialect.name == "postgresql"
