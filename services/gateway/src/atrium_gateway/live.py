"""The live sessions of this process: how much each may take, and how all end at shutdown.

`deps.Gateway` holds it for `api/realtime.py`; `rest_server.py` drains it.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from atrium_common.errors import Overloaded, Unavailable

_RETRY = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveLimits:
    """What a live session may take. Times in seconds.

    Attributes:
        sessions: Sessions that may be open at once in this process.
        session_seconds: Longest session.
        idle_seconds: Longest time without any event of the client.
        send_seconds: Longest time that the client may leave its events unread.
        final_seconds: Time for the last words, once a session is to end.
        check_seconds: Pause between two looks at the credential.
    """

    sessions: int = 1000
    session_seconds: float = 3600.0
    idle_seconds: float = 45.0
    send_seconds: float = 10.0
    final_seconds: float = 10.0
    check_seconds: float = 1.0


class LiveSessions:
    """Counts the open sessions, and tells them when the process is about to end."""

    def __init__(self, limits: LiveLimits | None = None) -> None:
        self.limits = limits or LiveLimits()
        self._open = 0
        self._stopping = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def count(self) -> int:
        """Sessions that are open."""
        return self._open

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Holds a place for a session.

        Raises:
            Unavailable: The process is about to end.
            Overloaded: All places are taken.
        """
        if self._stopping.is_set():
            raise Unavailable("The server restarts; connect again.", retry_after=_RETRY)
        if self._open >= self.limits.sessions:
            raise Overloaded("Too many live sessions are open.", retry_after=_RETRY)
        self._open += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._open -= 1
            if not self._open:
                self._empty.set()

    async def stopping(self, *, within: float) -> bool:
        """Waits for the process's end, at most so many seconds; True if it comes."""
        try:
            async with asyncio.timeout(within):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    async def drain(self) -> None:
        """Lets every session say its last words, then waits until all have ended."""
        self._stopping.set()
        await self._empty.wait()
