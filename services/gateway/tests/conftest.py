"""Real servers that the gateway's tests share; a test takes a database or a prefix of its own."""

from collections.abc import Iterator

import pytest

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
