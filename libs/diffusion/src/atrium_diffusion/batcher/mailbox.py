"""Events of one request on their way from the engine thread to its reader."""

import asyncio
from collections import deque

from atrium_common.errors import AtriumError
from atrium_diffusion.domain import PictureEvent, PreviewMade


class Mailbox:
    """Holds what was not read yet; touched on the event loop only.

    The engine never waits for a reader. Of unread previews only the newest of each
    picture is kept; steps are small, and no more than were planned.
    """

    def __init__(self) -> None:
        """Makes an empty mailbox."""
        self._events: deque[PictureEvent] = deque()
        self._end: AtriumError | None = None
        self._ended = False
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: PictureEvent) -> None:
        """Adds an event."""
        if isinstance(event, PreviewMade):
            for old in tuple(self._events):
                if isinstance(old, PreviewMade) and old.index == event.index:
                    self._events.remove(old)
        self._events.append(event)
        self._news.set()

    def end(self, error: AtriumError | None) -> None:
        """Says that nothing more comes, because of `error` if there was one."""
        self._ended, self._end = True, error
        self._news.set()

    @property
    def ended(self) -> bool:
        """True once the engine has let go of the request."""
        return self._ended

    async def get(self) -> PictureEvent | None:
        """Waits for the next event; ``None`` at the end.

        Raises:
            AtriumError: The request failed. What came before is given first.
        """
        while not self._events and not self._ended:
            self._news.clear()
            await self._news.wait()
        if self._events:
            return self._events.popleft()
        if self._end is not None:
            raise self._end
        return None

    async def drained(self) -> None:
        """Waits for the end, whatever it is."""
        while not self._ended:
            self._news.clear()
            await self._news.wait()
