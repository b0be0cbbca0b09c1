"""Real servers that the gateway's tests share; a test takes a database or a prefix of its own."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from atrium_gateway.database import upgrade_blocking
from atrium_gateway.testing.servers import (
    PostgresServer,
    RedisServer,
    postgres_server,
    redis_server,
)


@pytest.fixture(scope="session")
def real_redis() -> Iterator[RedisServer]:
    """One Redis for all tests; whoever kills it takes `redis_server` instead."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def real_postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests; see `PostgresServer.new_database`."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def upgraded_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database at the newest revision, for tests to copy: the way there takes a while."""
    file = tmp_path_factory.mktemp("upgraded") / "gateway.db"
    with ThreadPoolExecutor(1) as thread:  # it brings an event loop of its own
        thread.submit(upgrade_blocking, f"sqlite+aiosqlite:///{file}").result()
    return file
