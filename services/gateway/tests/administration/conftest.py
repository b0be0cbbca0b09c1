"""What the tests of administration share: a desk over each kind of database, and records."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner
from uuid_utils import uuid7

from atrium_gateway.administration.desk import Administration
from atrium_gateway.auth.keys import NewKey, make_key
from atrium_gateway.cli.app import app
from atrium_gateway.database import open_engine, upgrade
from atrium_gateway.quota.limits import Window
from atrium_gateway.quota.policy import LimitPolicy
from atrium_gateway.tenants.domain import ApiKey, Tenant
from atrium_gateway.testing.servers import PostgresServer

NOON = datetime(2026, 3, 14, 12, 30, tzinfo=UTC)
PEPPER = bytes(range(32))
_names = itertools.count()


@pytest.fixture(params=["sqlite", "postgresql"])
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Administration]:
    """Administers an empty database, of either kind."""
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("real_postgres")
        url = server.new_database(f"administration_{next(_names)}")
    else:
        file = shutil.copy(request.getfixturevalue("upgraded_sqlite"), tmp_path / "x.db")
        url = f"sqlite+aiosqlite:///{file}"
    engine = open_engine(url)
    await upgrade(engine)
    yield Administration(
        engine=engine,
        pepper=PEPPER,
        now=lambda: NOON,
        new_id=lambda: str(uuid7()),
        policy=LimitPolicy(default_amount=100, default_window=Window.HOUR),
        exports=tmp_path / "exports",
        flush=_nothing,
    )
    await engine.dispose()


async def _nothing() -> None:
    """There is no spool."""


@pytest.fixture
def new_tenant() -> Callable[[str], Tenant]:
    """Makes a tenant's record, not stored yet."""
    return lambda name: Tenant(
        id=name,
        name=name.title(),
        blocked=False,
        unlimited=False,
        weight=1.0,
        limits=(),
        created_at=NOON,
    )


@pytest.fixture
def new_key() -> Callable[[str], tuple[ApiKey, NewKey]]:
    """Makes a key, not stored yet."""

    def make(tenant: str) -> tuple[ApiKey, NewKey]:
        made = make_key(PEPPER)
        kept = ApiKey(
            id=made.id,
            tenant=tenant,
            name="",
            digest=made.digest,
            scopes=frozenset({"*"}),
            roles=frozenset(),
            created_at=NOON,
            expires_at=None,
            revoked_at=None,
        )
        return kept, made

    return make


@pytest.fixture
def run_atrium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[str]]:
    """Runs a command in a thread, for it brings an event loop of its own."""
    monkeypatch.setenv("ATRIUM_STATE_DIR", str(tmp_path))

    async def run(*arguments: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        if result.exception is not None:
            raise result.exception
        return result.stdout.strip()

    return run
