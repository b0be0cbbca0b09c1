"""Tells all gateways over one Redis at once that tenants, keys or limits have changed.

`replica.py` opens it. Messages may be lost: gateways also look at the database once a second.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

_log = structlog.get_logger(__name__)

_CHANGED: Final = b"changed"
_AGAIN_SECONDS: Final = 0.5
_ANSWER_SECONDS: Final = 1.0
_AWAY: Final = (RedisError, OSError, TimeoutError)


class ChangeChannel:
    """A channel on which changes are announced and heard.

    Args:
        url: Address of the Redis.
        prefix: Begins the channel's name.
    """

    def __init__(self, url: str, *, prefix: str = "atrium") -> None:
        self._redis = Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=_ANSWER_SECONDS,
            socket_keepalive=True,
        )
        self._name = f"{prefix}:changes"
        self._telling: set[asyncio.Task[None]] = set()

    def announce(self) -> None:
        """Tells all who listen, without waiting for it."""
        task = asyncio.get_running_loop().create_task(self._publish())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def follow(self, heard: Callable[[], None]) -> None:
        """Calls `heard` at each change, and whenever something may have been missed; endless."""
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(self._name)
                    # Of the subscription itself, too: nobody knows what was said before.
                    async for _ in channel.listen():
                        heard()
            except _AWAY as err:
                _log.warning("changes_not_heard", error=type(err).__name__)
            await asyncio.sleep(_AGAIN_SECONDS)

    async def close(self) -> None:
        """Ends it when all announcements are out or have failed."""
        await asyncio.gather(*self._telling)
        await self._redis.aclose()

    async def _publish(self) -> None:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._redis.publish(self._name, _CHANGED)
        except _AWAY as err:
            _log.warning("change_not_announced", error=type(err).__name__)
