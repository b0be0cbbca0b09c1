"""Gateways that share a Redis, for the tests of this folder.

Lets test modules import their neighbour `replica_gateways.py`.
"""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from atrium_gateway.core import open_core
from atrium_gateway.quota.limits import Limit
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.testing.servers import RedisServer, redis_server

sys.path.insert(0, str(Path(__file__).parent))

from replica_gateways import tenant


@pytest.fixture(scope="package")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(server.url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def together(settings: GatewaySettings, server: RedisServer, redis: Redis) -> GatewaySettings:
    return settings.model_copy(
        update={
            "quota_redis_url": GatewaySettings(quota_redis_url=server.url).quota_redis_url,
            "lease_seconds": 30.0,
            # Long: a machine under load must not look like a store that is away.
            "quota_timeout_seconds": 5.0,
        }
    )


@pytest.fixture
def gateways(together, catalogue):
    """Opens so many gateways, the first of which makes the tenant with its limits."""

    @asynccontextmanager
    async def opened(count: int, *limits: Limit, **changes: object):
        changed = together.model_copy(update=changes)
        async with AsyncExitStack() as stack:
            cores = [
                await stack.enter_async_context(open_core(changed, catalogue=catalogue))
                for _ in range(count)
            ]
            if await cores[0].tenants.tenant("acme") is None:
                await cores[0].tenants.create_tenant(tenant(*limits))
            yield cores

    return opened
