"""How the store of `redis_store.py` talks to Redis: bounded, timed, behind a breaker."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from atrium_common.errors import Unavailable
from atrium_gateway.quota.breaker import Breaker
from atrium_gateway.quota.patience import patience
from atrium_gateway.quota.redis_line import Argument, RedisLine
from atrium_gateway.quota.script import GOING_ON, Script

T = TypeVar("T")
Answer = list[bytes]

_RETRY: Final = timedelta(seconds=1)
CONNECTIONS: Final = 32
"""Calls at once; what waits for its turn waits here, not on the time-out."""


def open_redis(url: str) -> Redis:
    """A client for the quota store; a call that fails is not sent twice."""
    pool = BlockingConnectionPool.from_url(
        url, max_connections=CONNECTIONS, retry=Retry(NoBackoff(), 0), protocol=2
    )
    return Redis.from_pool(pool)


def store_away() -> Unavailable:
    """The error for a store that can't be reached."""
    return Unavailable(
        "The quota store can't be reached now.", reason="QUOTA_STORE_AWAY", retry_after=_RETRY
    )


class RedisCalls:
    """Calls the store's script and plain commands.

    Every method raises `Unavailable` where there is no answer in time.

    Args:
        redis: A client; it stays the caller's.
        timeout: Longest wait for an answer.
    """

    def __init__(self, redis: Redis, *, timeout: timedelta) -> None:
        self.redis = redis
        self._timeout = timeout.total_seconds()
        self._breaker = Breaker(time.monotonic)
        self._line = RedisLine(redis.connection_pool, seconds=self._timeout)
        self._turns = asyncio.Semaphore(CONNECTIONS)

    async def script(
        self, keys: Sequence[str], arguments: Sequence[Argument], *, script: Script = GOING_ON
    ) -> Answer:
        """Runs the script; sends it along where the server does not have it."""
        everything = (len(keys), *keys, *arguments)
        try:
            found = await self._tried(
                lambda: self._line.call("EVALSHA", script.digest, *everything)
            )
        except NoScriptError:  # the server was restarted, or another one took over
            found = await self._tried(lambda: self._line.call("EVAL", script.text, *everything))
        return cast("Answer", found)

    async def answered(self, call: Callable[[], Awaitable[T]]) -> T:
        """Sends a command of `redis` when it is its turn."""

        async def timed() -> T:
            async with patience(self._timeout):
                return await call()

        return await self._tried(timed)

    async def _tried(self, call: Callable[[], Awaitable[T]]) -> T:
        """Makes a call that ends in time when it is its turn."""
        async with self._turns:
            if not self._breaker.allows():
                raise store_away()
            try:
                found = await call()
            except NoScriptError:
                self._breaker.succeeded()
                raise
            except ResponseError as err:  # it is full, say: no one waits for it in vain
                self._breaker.succeeded()
                raise store_away() from err
            except (RedisError, TimeoutError, OSError) as err:
                self._breaker.failed()
                raise store_away() from err
        self._breaker.succeeded()
        return found
