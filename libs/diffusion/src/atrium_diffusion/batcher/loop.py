"""The engine thread: choose, tick, hand over; until it is stopped.

Requests come in by an inbox and leave by their mailboxes; everything between belongs to
this thread alone. A tick's news for all readers crosses to the event loop in one call.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import torch

from atrium_common.errors import AtriumError, Unavailable
from atrium_diffusion.batcher.budget import BatchLimits, Budget
from atrium_diffusion.batcher.denoiser import Denoiser
from atrium_diffusion.batcher.order import StepOrder
from atrium_diffusion.batcher.request import Picture, Request
from atrium_diffusion.batcher.ticker import Outcome, Ticker
from atrium_diffusion.domain import PictureEvent, PictureMade, PicturePlan
from atrium_diffusion.model import DiffusionModel

_log = logging.getLogger(__name__)

T = TypeVar("T")


class DenoisingLoop:
    """Runs the requests of one model on one thread.

    `submit`, `cancel` and `stop` may be called from any thread.

    Attributes:
        ticks: Ticks taken.
        picture_steps: Steps taken, of all pictures together.
        running: Pictures that have begun and are not finished.
    """

    def __init__(
        self,
        model: DiffusionModel,
        *,
        limits: BatchLimits,
        events: asyncio.AbstractEventLoop,
        name: str,
        threads: int,
        clock: Callable[[], float],
        on_failure: Callable[[str], None],
    ) -> None:
        """Prepares the loop; `start` starts it. The arguments are `StepBatcher`'s."""
        self._limits = limits
        self._budget = Budget(limits)
        self._ticker = Ticker(Denoiser(model), self._budget, clock=clock)
        self._order: StepOrder[Picture] = StepOrder()
        self._requests: set[Request] = set()
        self._inbox: deque[Request] = deque()
        self._outbox: list[tuple[Request, PictureEvent | AtriumError | None]] = []
        self._events = events
        self._threads = threads
        self._on_failure = on_failure
        self._wake = threading.Event()
        self._stopping = False
        self._submitting = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.ticks = 0
        self.picture_steps = 0
        self.running = 0

    @property
    def waiting(self) -> int:
        """Pictures that have not begun; a request that just came counts as one."""
        return len(self._order) - self.running + len(self._inbox)

    @property
    def unet_calls(self) -> int:
        """UNet calls made."""
        return self._ticker.unet_calls

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Takes a request; its mailbox gets everything that follows.

        Raises:
            Unavailable: The loop was stopped or has failed.
        """
        with self._submitting:
            if self._stopping or not self._thread.is_alive():
                raise Unavailable("The model is not running.")
            self._inbox.append(request)
        self._wake.set()

    def cancel(self, request: Request) -> None:
        """Ends a request before the next step; its mailbox then says so."""
        request.cancelled = True
        self._wake.set()

    def stop(self, *, timeout: float = 60.0) -> None:
        """Ends the thread; requests that still run fail as `Unavailable`. Blocks."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        failure: str | None = None
        try:
            torch.set_num_threads(self._threads)
            with torch.no_grad():
                while not self._stopping:
                    self._turn()
        except Exception as error:
            # The thread's edge: whatever it was, no reader may wait for ever.
            _log.exception("the denoiser's thread died")
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
        self.running = 0
        if failure is not None:  # first, so that a reader who asks learns the state
            self._call(self._on_failure, failure)
        self._hand_over()

    def _turn(self) -> None:
        self._wake.clear()
        self._collect()
        self._hand_over()  # who left need not wait for another tick to be told
        # Nobody waits while the first ones begin, so that they may all begin at once.
        begins = self._limits.begins if self.running else self._limits.max_batch
        batch = self._order.choose(self._budget.fits, begins=begins)
        if batch:
            self._tick(batch)
        self._hand_over()
        if not batch:
            self._wake.wait()

    def _collect(self) -> None:
        while self._inbox:
            request = self._inbox.popleft()
            self._requests.add(request)
            for plan in request.plan.pictures if not request.cancelled else ():
                self._admit(request, plan)
            if not request.pictures:
                self._release(request, None)
        for request in [request for request in self._requests if request.cancelled]:
            self._release(request, None)
        self._count()

    def _admit(self, request: Request, plan: PicturePlan) -> None:
        if plan.steps == 0 and plan.source is not None:  # strength 0: the source as it is
            made = PictureMade(index=plan.index, pixels=plan.source.pixels)
            self._outbox.append((request, made))
            return
        picture = request.picture(plan)
        request.pictures.add(picture)
        self._order.add(picture)

    def _tick(self, batch: list[Picture]) -> None:
        outcome = Outcome()
        ready = self._ticker.begin(batch, outcome)
        self._count()
        self._ticker.step(ready, outcome)
        self._order.charge(outcome.stepped)
        self.ticks += 1
        self.picture_steps += len(outcome.stepped)
        for picture, event in outcome.events:
            self._outbox.append((picture.request, event))
            if isinstance(event, PictureMade):
                self._let_go(picture)
        for picture, error in outcome.failed:
            self._release(picture.request, error)
        for picture in outcome.stepped:
            if not picture.request.pictures:
                self._release(picture.request, None)
        self._count()

    def _let_go(self, picture: Picture) -> None:
        picture.canvas = None
        self._order.remove(picture)
        picture.request.pictures.discard(picture)

    def _release(self, request: Request, error: AtriumError | None) -> None:
        """Takes a request out and tells its reader that nothing more comes."""
        if request.released:
            return
        request.released = True
        for picture in tuple(request.pictures):
            self._let_go(picture)
        self._requests.discard(request)
        self._outbox.append((request, error))

    def _count(self) -> None:
        self.running = sum(p.begun for request in self._requests for p in request.pictures)

    def _hand_over(self) -> None:
        if self._outbox:
            news, self._outbox = self._outbox, []
            self._call(_deliver, news)

    def _call(self, function: Callable[[T], None], argument: T) -> None:
        try:
            self._events.call_soon_threadsafe(function, argument)
        except RuntimeError:  # the readers' event loop is closed: nobody is left to tell
            self._stopping = True


def _deliver(news: list[tuple[Request, PictureEvent | AtriumError | None]]) -> None:
    for request, item in news:
        if item is None or isinstance(item, AtriumError):
            request.mailbox.end(item)
        else:
            request.mailbox.put(item)
