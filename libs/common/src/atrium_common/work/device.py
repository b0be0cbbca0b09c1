"""Blocking model code on one thread of its own, per device. Serial engines use this.

A model that is not safe to share, and a device that does one thing at a time, get a
thread that does one thing at a time. The event loop stays free: health answers while a
model works.
"""

import asyncio
import contextvars
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, ParamSpec, TypeVar

from atrium_common.errors import Cancelled, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

_UNREAD = 1
"""Items that may lie unread: the next is computed while the last is on its way out."""


class CancelToken:
    """Tells model code that its reader has left. Set and read from any thread."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def cancelled(self) -> bool:
        """True once the reader has left."""
        return self._event.is_set()

    def raise_if_cancelled(self) -> None:
        """Raises `Cancelled` once the reader has left; call it at every step."""
        if self.cancelled:
            raise Cancelled("The caller left.")

    def cancel(self) -> None:
        """Asks the work to stop at its next step."""
        self._event.set()


class DeviceThread:
    """One thread that does one piece of work at a time, in order of arrival.

    Stands behind a `WorkQueue` of one slot: the queue decides who is next, the thread
    keeps the loop free. Work sees its caller's context variables.
    """

    def __init__(self, name: str = "device") -> None:
        """Starts the thread.

        Args:
            name: Shown in stack dumps, e.g. ``"device-cuda:0"``.
        """
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._cancel_streams: set[Callable[[], None]] = set()
        self._closed = False
        self._closing = threading.Lock()
        # A daemon, so that a model that hangs can't hold up the end of the process.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def call(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `fn` in the thread and returns its result.

        If the caller is cancelled before `fn` has begun, `fn` does not run; if after,
        it runs to its end and its result is dropped.

        Raises:
            Unavailable: The thread is closed.
        """
        return await asyncio.wrap_future(self._submit(lambda: fn(*args, **kwargs)))

    async def stream(self, make: Callable[[CancelToken], Iterator[T]]) -> AsyncGenerator[T, None]:
        """Runs an iterator in the thread and yields its items on the loop.

        The iterator is never more than two items ahead of its reader. When the reader
        leaves (`aclose`, cancellation), the token is set, and leaving takes until the
        iterator has ended its present step and is closed: afterwards the thread touches
        nothing of it. What it raises reaches the reader; what it raises after the reader
        left reaches the loop's exception handler.

        Args:
            make: Makes the iterator, in the thread.

        Raises:
            Unavailable: The thread is closed, or was while the stream ran.
        """
        stream = _Stream(make)
        outcome = self._submit(stream.pump)
        ended = asyncio.wrap_future(outcome)
        ended.add_done_callback(lambda _: stream.items.put_nowait(None))
        self._cancel_streams.add(stream.cancel)
        try:
            while (item := await stream.items.get()) is not None:
                stream.taken()
                yield item[0]
            await ended
            if stream.token.cancelled:
                raise Unavailable("The engine was closed.")
        finally:
            self._cancel_streams.discard(stream.cancel)
            stream.cancel()
            outcome.cancel()  # has an effect only if it has not begun
            await _done(ended)

    async def flush(self) -> None:
        """Waits until the thread has let go of all work that was given to it before.

        A finished piece of work may keep its model for a moment: whoever wants a model's
        memory back waits for this first. Returns at once if the thread is closed.
        """
        with suppress(Unavailable):
            await self.call(lambda: None)

    def close(self, *, timeout: float = 2.0) -> None:
        """Ends the thread: streams are cancelled, waiting work fails as `Unavailable`.

        May be called twice and from any thread.

        Args:
            timeout: Most seconds to block until the present step ends. A load that runs is left
                to itself after it: `atrium_common.process` ends the process all the same.
        """
        with self._closing:
            if not self._closed:
                self._closed = True
                self._work.put(None)
        for cancel in tuple(self._cancel_streams):
            cancel()
        self._thread.join(timeout)

    def _submit(self, fn: Callable[[], T]) -> Future[T]:
        outcome: Future[T] = Future()
        context = contextvars.copy_context()

        def work() -> None:
            if not outcome.set_running_or_notify_cancel():
                return
            try:
                if self._closed:
                    raise Unavailable("The engine is closed.")
                outcome.set_result(context.run(fn))
            except StopIteration as err:  # a future can't hold it
                outcome.set_exception(RuntimeError(f"the work raised {err!r}"))
            except BaseException as err:
                outcome.set_exception(err)

        with self._closing:
            if self._closed:
                raise Unavailable("The engine is closed.")
            self._work.put(work)
        return outcome

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # keeps no request's data alive while the thread is idle


class _Stream(Generic[T]):
    """Carries an iterator's items from the device thread to the loop."""

    def __init__(self, make: Callable[[CancelToken], Iterator[T]]) -> None:
        self.token = CancelToken()
        self.items: asyncio.Queue[tuple[T] | None] = asyncio.Queue()
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(_UNREAD)

    def pump(self) -> None:
        """Runs the iterator until it ends or is cancelled, and closes it; in the thread."""
        iterator = self._make(self.token)
        try:
            for item in iterator:
                self._room.acquire()
                if self.token.cancelled:
                    return
                self._loop.call_soon_threadsafe(self.items.put_nowait, (item,))
        except Cancelled:
            if not self.token.cancelled:
                raise
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def taken(self) -> None:
        """Makes room for one more item."""
        self._room.release()

    def cancel(self) -> None:
        """Stops the pump at its next step, also where it waits for room."""
        self.token.cancel()
        self._room.release()


async def _done(future: asyncio.Future[None]) -> None:
    """Waits until the future is done; a cancellation meanwhile is raised afterwards."""
    cancellation: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as err:
            cancellation = err
    if cancellation is not None:
        raise cancellation
