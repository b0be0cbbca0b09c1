"""What Alembic runs: upgrades on the connection that `database.upgrade` hands over."""

from alembic import context

from atrium_gateway.audit import tables as _audit  # noqa: F401  (fills the metadata)
from atrium_gateway.database import metadata
from atrium_gateway.idempotency import tables as _idempotency  # noqa: F401  (fills the metadata)
from atrium_gateway.tenants import tables as _tenants  # noqa: F401  (fills the metadata)
from atrium_gateway.usage import tables as _usage  # noqa: F401  (fills the metadata)

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    # SQLite can alter a table only by copying it.
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
