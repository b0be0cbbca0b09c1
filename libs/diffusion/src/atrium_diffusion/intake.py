"""Reads an engine's events as fast as it tells them, however slow the caller reads.

So a request's steps are counted when they are taken, and finished pictures of a slow
caller don't hold up what others share with it. `finishing.py` reads from it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Self, cast

from atrium_diffusion.domain import PictureEvent, PreviewMade


class EventIntake:
    """The events of one request, in order.

        async with EventIntake(engine.draw(plan), taken=meter.count) as intake:
            while (event := await intake.next()) is not None: ...

    Leaving the block closes the engine's iterator, and takes until it is closed.
    A preview that was not read before the next one of its picture came is dropped.
    """

    def __init__(
        self, events: AsyncIterator[PictureEvent], *, taken: Callable[[PictureEvent], None]
    ) -> None:
        """Prepares; reading begins with the block.

        Args:
            events: What the engine tells.
            taken: Told of each event at once.
        """
        # Engines write their streams as async generators; the port promises less.
        self._events = cast("AsyncGenerator[PictureEvent, None]", events)
        self._taken = taken
        self._unread: deque[PictureEvent] = deque()
        self._changed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read())
        self._reading.add_done_callback(lambda _: self._changed.set())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        reading = self._reading
        assert reading is not None  # noqa: S101 - the block was entered
        reading.cancel()
        await asyncio.wait({reading})
        if not reading.cancelled() and (failed := reading.exception()) and error is None:
            raise failed

    async def next(self) -> PictureEvent | None:
        """Returns the next event, or ``None`` after the last one.

        What the engine raises is raised here, after what it told before was read.
        """
        reading = self._reading
        assert reading is not None  # noqa: S101 - the block was entered
        while not self._unread:
            if reading.done():
                await reading
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._unread.popleft()

    async def _read(self) -> None:
        async with aclosing(self._events) as events:
            async for event in events:
                self._taken(event)
                if isinstance(event, PreviewMade):
                    self._drop_preview(event.index)
                self._unread.append(event)
                self._changed.set()

    def _drop_preview(self, index: int) -> None:
        for event in self._unread:
            if isinstance(event, PreviewMade) and event.index == index:
                self._unread.remove(event)
                return
