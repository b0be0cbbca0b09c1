"""The thread of a batching engine: takes requests in, turns, hands the news over.

Engines that decide at every step who is in the batch (the denoiser, the language models'
continuous batching) say what a turn is; how requests come, leave and fail is said here.
"""

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

from atrium_common.errors import AtriumError, Unavailable
from atrium_common.telemetry.shares import BatchShare
from atrium_common.telemetry.tally import ROWS, Tally

_log = logging.getLogger(__name__)

T = TypeVar("T")


class RequestMailbox(Protocol):
    """What the loop knows of a mailbox; touched on the readers' event loop only."""

    def end(self, error: AtriumError | None, /) -> None:
        """Says that nothing more comes, because of `error` if there was one."""


class LoopRequest(Protocol):
    """What the loop knows of a request.

    Attributes:
        cancelled: Set by the reader's side when it leaves.
        released: True once nothing more is sent to its mailbox.
    """

    cancelled: bool
    released: bool

    @property
    def mailbox(self) -> RequestMailbox:
        """Where its reader finds what happened."""


RequestT = TypeVar("RequestT", bound=LoopRequest)


class BatchingLoop(ABC, Generic[RequestT]):
    """Runs the requests of one model on one thread.

    Requests come in by an inbox and leave by their mailboxes; everything between belongs
    to the thread alone. A turn's news for all readers crosses to their event loop in one
    call. `submit`, `cancel` and `stop` may be called from any thread.
    """

    def __init__(
        self,
        *,
        events: asyncio.AbstractEventLoop,
        on_failure: Callable[[str], None],
        name: str,
        batches: Tally | None = None,
    ) -> None:
        """Prepares the loop; `start` starts it.

        Args:
            events: The readers' event loop.
            on_failure: Called on `events` with one line if the thread dies.
            name: Of the thread, shown in stack dumps.
            batches: Counts the rows of each step, for whoever reads it.
        """
        self._batches = batches or Tally(ROWS)
        self._shares: dict[RequestT, BatchShare] = {}
        self._events = events
        self._on_failure = on_failure
        self._inbox: deque[RequestT] = deque()
        self._requests: set[RequestT] = set()
        self._outbox: list[Callable[[], None]] = []
        self._wake = threading.Event()
        self._stopping = False
        self._submitting = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def submit(self, request: RequestT) -> None:
        """Takes a request; its mailbox gets everything that follows.

        Raises:
            Unavailable: The loop was stopped or has failed.
        """
        with self._submitting:
            if self._stopping or not self._thread.is_alive():
                raise Unavailable("The model is not running.")
            share = BatchShare.of_present_span()
            if share is not None:
                self._shares[request] = share
            self._inbox.append(request)
        self._wake.set()

    def cancel(self, request: RequestT) -> None:
        """Ends a request before the next step; its mailbox then says so."""
        request.cancelled = True
        self._wake.set()

    def stop(self, *, timeout: float = 60.0) -> None:
        """Ends the thread; requests that still run fail as `Unavailable`. Blocks.

        Args:
            timeout: Most seconds to wait for the present turn.
        """
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    @abstractmethod
    def _admit(self, request: RequestT) -> None:
        """Puts a new request among those that `_turn` chooses from."""

    @abstractmethod
    def _turn(self) -> bool:
        """Takes one step of some requests; False if none has work, until news come."""

    @abstractmethod
    def _let_go(self, request: RequestT) -> None:
        """Frees what a request holds, admitted or not."""

    def _work(self) -> None:
        """Turns until stopped; where the thread needs preparing, it is done around this."""
        while not self._stopping:
            self._wake.clear()
            self._collect()
            worked = self._turn()
            self._hand_over()
            if not worked:
                self._wake.wait()

    def _count_batch(self, rows: int, requests: Iterable[RequestT]) -> None:
        """Notes how many rows share a step, and whose they are."""
        self._batches.observe(rows)
        if self._shares:
            for request in set(requests):
                if (share := self._shares.get(request)) is not None:
                    share.add(rows)

    def _post(self, tell: Callable[[T], None], news: T) -> None:
        """Has `tell(news)` called on the readers' event loop at the next handing over."""
        self._outbox.append(partial(tell, news))

    def _release(self, request: RequestT, error: AtriumError | None) -> None:
        """Takes a request out and tells its reader that nothing more comes."""
        if request.released:
            return
        request.released = True
        if (share := self._shares.pop(request, None)) is not None:
            share.tell()
        self._let_go(request)
        self._requests.discard(request)
        self._post(request.mailbox.end, error)

    def _hand_over(self) -> None:
        if not self._outbox:
            return
        news, self._outbox = self._outbox, []
        try:
            self._events.call_soon_threadsafe(_deliver, news)
        except RuntimeError:  # the readers' event loop is closed: nobody is left to tell
            self._stopping = True

    def _collect(self) -> None:
        while self._inbox:
            request = self._inbox.popleft()
            self._requests.add(request)
            if not request.cancelled:
                self._admit(request)
        for request in [request for request in self._requests if request.cancelled]:
            self._release(request, None)

    def _run(self) -> None:
        failure: str | None = None
        try:
            self._work()
        except Exception as error:
            # The thread's edge: whatever it was, no reader may wait for ever.
            _log.exception("the thread of a batching engine died")
            failure = f"{type(error).__name__}: {error}"
        finally:
            self._end(failure)

    def _end(self, failure: str | None) -> None:
        with self._submitting:
            self._stopping = True
        self._requests.update(self._inbox)
        self._inbox.clear()
        error = Unavailable("The model stopped." if failure is None else "The model failed.")
        for request in tuple(self._requests):
            self._release(request, None if request.cancelled else error)
        if failure is not None:  # in the same call, so that a reader who asks learns the state
            self._post(self._on_failure, failure)
        self._hand_over()


def _deliver(news: Sequence[Callable[[], None]]) -> None:
    for tell in news:
        tell()
