"""The schema's history leads to the schema that the code expects, and can be repeated."""

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

import atrium_gateway
from atrium_gateway.audit import tables as _audit  # noqa: F401  (fills the metadata)
from atrium_gateway.database import metadata, open_engine, upgrade
from atrium_gateway.idempotency import tables as _idempotency  # noqa: F401  (fills the metadata)
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


_ROLLED_UP = (
    "INSERT INTO usage_hourly VALUES ('t', 7, 'chat', 'm', 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)"
)
_EVENT = """
INSERT INTO usage_events VALUES (:id, 't', 's', NULL, 'chat', 'm', 'x', 'r', :started, 0,
  'completed', '', 0, 'e', '', 0, :inference, 0, '{}', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
"""


def _to(connection: Connection, revision: str) -> None:
    config = Config()
    folder = Path(atrium_gateway.__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


async def test_hours_of_the_past_get_the_devices_time_of_their_events(tmp_path):
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path}/x.db")
    hour = 7 * 3_600_000
    async with engine.connect() as connection:
        await connection.run_sync(_to, "0001")
        await connection.execute(text(_ROLLED_UP))
        for number, started in enumerate((hour - 1, hour, hour + 3_599_999, hour + 3_600_000)):
            row = {"id": str(number), "started": started, "inference": 10**number}
            await connection.execute(text(_EVENT), row)
        await connection.run_sync(_to, "0002")
        summed = await connection.execute(text("SELECT requests, inference_ms FROM usage_hourly"))
        assert [tuple(row) for row in summed] == [(2, 110)]
    await engine.dispose()
