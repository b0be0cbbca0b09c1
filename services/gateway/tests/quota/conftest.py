"""The stores of every test here, with a real Redis; the tests of a `store` run once for each.

Lets test modules import their neighbour `quota_stores.py`.
"""

import itertools
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from atrium_gateway.quota.in_process import InProcessQuotaStore
from atrium_gateway.quota.redis_store import RedisQuotaStore
from atrium_gateway.testing.servers import RedisServer, redis_server

sys.path.insert(0, str(Path(__file__).parent))

from quota_stores import PATIENT, Clock, Counted

_PREFIXES = (f"test{number}" for number in itertools.count())


@pytest.fixture(scope="package")
def quota_redis() -> Iterator[RedisServer]:
    """A real Redis of these tests' own."""
    with redis_server() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture(params=["in_process", "redis"])
async def make_store(
    request: pytest.FixtureRequest,
) -> AsyncIterator[Callable[[Clock], Counted]]:
    """Makes an empty store over a clock."""
    if request.param == "in_process":
        yield lambda clock: Counted(InProcessQuotaStore(clock=clock))
        return
    async with Redis.from_url(request.getfixturevalue("quota_redis").url) as client:
        yield lambda clock: Counted(
            RedisQuotaStore(client, prefix=next(_PREFIXES), clock=clock, timeout=PATIENT)
        )


@pytest.fixture
def store(make_store: Callable[[Clock], Counted], clock: Clock) -> Counted:
    return make_store(clock)


@pytest_asyncio.fixture
async def shared(quota_redis: RedisServer, clock: Clock) -> AsyncIterator[RedisQuotaStore]:
    """The store that several gateways count in."""
    async with Redis.from_url(quota_redis.url) as client:
        yield RedisQuotaStore(client, prefix=next(_PREFIXES), clock=clock, timeout=PATIENT)
