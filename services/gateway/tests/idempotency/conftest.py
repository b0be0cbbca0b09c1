"""Stores of answers over SQLite and PostgreSQL, on a clock that a test moves."""

import itertools
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_gateway.database import open_engine, upgrade
from atrium_gateway.idempotency.domain import Attempt, Bounds, key_digest
from atrium_gateway.idempotency.store import AnswerStore
from atrium_gateway.testing.servers import PostgresServer, postgres_server

sys.path.insert(0, str(Path(__file__).parent))


class Clock:
    """Unix seconds that move only when told to."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, span: timedelta) -> None:
        self.now += span.total_seconds()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
async def engines(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, AsyncEngine]]:
    folder = tmp_path_factory.mktemp("answers")
    urls = {
        "sqlite": f"sqlite+aiosqlite:///{folder / 'answers.db'}",
        "postgresql": postgres.new_database("answers"),
    }
    opened = {name: open_engine(url) for name, url in urls.items()}
    for engine in opened.values():
        await upgrade(engine)
    yield opened
    for engine in opened.values():
        await engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(engines: dict[str, AsyncEngine], request: pytest.FixtureRequest) -> AsyncEngine:
    return engines[request.param]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store_of(engine: AsyncEngine, clock: Clock) -> AsyncIterator[Callable[..., AnswerStore]]:
    """Opens stores; each is a gateway process's own."""
    opened: list[AnswerStore] = []

    def open_store(**bounds: Any) -> AnswerStore:
        opened.append(AnswerStore(engine, Bounds(**bounds), clock=clock))
        return opened[-1]

    yield open_store
    for store in opened:
        await store.close()


@pytest.fixture
def store(store_of: Callable[..., AnswerStore]) -> AnswerStore:
    return store_of()


_numbers = itertools.count()


@pytest.fixture
def tenant() -> str:
    """A tenant of the test's own: the databases are shared."""
    return f"tenant-{next(_numbers)}"


@pytest.fixture
def attempt(tenant: str) -> Callable[..., Attempt]:
    """Makes tries of requests; each has an id of its own."""

    def make(
        key: str = "k", body: bytes = b"one", *, of: str = tenant, path: str = "/x"
    ) -> Attempt:
        return Attempt(
            tenant=of,
            digest=key_digest("POST", path, key.encode()),
            fingerprint=body.ljust(32, b"."),
            id=f"try-{next(_numbers)}",
            request_id=f"req-{next(_numbers)}",
        )

    return make
