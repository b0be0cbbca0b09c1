"""An iterator's steps in the device thread, one call each; `faster_whisper.py` streams by it.

Unlike `DeviceThread.stream`, the thread is free between two steps, so that a long recording
and live speakers can take turns at one device.
"""

from collections.abc import AsyncGenerator, Callable, Generator
from typing import Generic, TypeVar

from atrium_common.errors import Cancelled, Unavailable
from atrium_common.work import CancelToken, DeviceThread

T = TypeVar("T")


class Stepping(Generic[T]):
    """Runs iterators on a device thread, and can stop them all."""

    def __init__(self, thread: DeviceThread) -> None:
        """Takes the thread; closing it is its owner's."""
        self._thread = thread
        self._tokens: set[CancelToken] = set()

    async def stream(
        self, make: Callable[[CancelToken], Generator[T, None, None]]
    ) -> AsyncGenerator[T, None]:
        """Yields an iterator's items; the next is computed when it is asked for.

        Closing it sets the token, and takes until the iterator has ended its present step
        and is closed.

        Args:
            make: Makes the iterator; it gives no ``None``.

        Raises:
            Unavailable: The thread is closed, or was while the stream ran.
        """
        token = CancelToken()
        self._tokens.add(token)
        steps = make(token)
        try:
            while (item := await self._step(steps)) is not None:
                yield item
        finally:
            self._tokens.discard(token)
            token.cancel()
            await self._close(steps)

    def cancel(self) -> None:
        """Asks every iterator to stop at its next step."""
        for token in tuple(self._tokens):
            token.cancel()

    async def _step(self, steps: Generator[T, None, None]) -> T | None:
        try:
            return await self._thread.call(next, steps, None)
        except Cancelled as err:
            raise Unavailable("The engine was closed.") from err

    async def _close(self, steps: Generator[T, None, None]) -> None:
        try:
            await self._thread.call(steps.close)
        except Unavailable:  # the thread has ended, and no step runs
            steps.close()
