"""When keys were last used: noted on every request, written together once a minute."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError

from atrium_gateway.background import beside

_log = structlog.get_logger(__name__)

WRITE_SECONDS = 60.0
"""Pause between two writes; a key is written at most once in it."""
_LAST_WRITE_SECONDS = 5.0
"""Longest that the end of the process waits for the last write."""


class KeyUses:
    """Remembers uses until they are written; no request ever waits for that.

    Args:
        write: Writes aware UTC times by key id.
        clock: Returns Unix seconds.
    """

    def __init__(
        self,
        write: Callable[[Mapping[str, datetime]], Awaitable[None]],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._write = write
        self._clock = clock
        self._used: dict[str, float] = {}

    def note(self, key_id: str) -> None:
        """A key was used just now."""
        self._used[key_id] = self._clock()

    async def flush(self) -> None:
        """Writes what was noted; kept for the next time while the database is away."""
        used = dict(self._used)
        if not used:
            return
        try:
            await self._write({key: datetime.fromtimestamp(at, UTC) for key, at in used.items()})
        except (SQLAlchemyError, OSError) as err:
            _log.warning("key_uses_unwritten", error=type(err).__name__)
            return
        for key, at in used.items():
            if self._used[key] == at:
                del self._used[key]

    @asynccontextmanager
    async def writing(self, *, every: float = WRITE_SECONDS) -> AsyncIterator[None]:
        """Writes in the background while it is entered, and once more on leaving."""
        try:
            async with beside(self._keep_writing(every), name="key-uses"):
                yield
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WRITE_SECONDS):
                    await self.flush()

    async def _keep_writing(self, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            await self.flush()
