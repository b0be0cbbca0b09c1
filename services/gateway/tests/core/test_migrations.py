"""The schema's history leads to the schema that the code expects, and can be repeated."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from atrium_gateway.database import metadata, open_engine, upgrade
from atrium_gateway.tenants import tables as _tenants  # noqa: F401  (fills the metadata)
from atrium_gateway.usage import tables as _usage  # noqa: F401  (fills the metadata)


def differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, metadata))


async def test_an_upgraded_database_is_what_the_code_expects(tmp_path):
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path}/deep/er/x.db")
    for _ in range(2):
        await upgrade(engine)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
        assert await connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert await connection.scalar(text("PRAGMA synchronous")) == 2
        assert await connection.scalar(text("SELECT version FROM directory_version")) == 0
    await engine.dispose()
