"""The engine thread: choose, tick, hand over; until it is stopped.

How requests come in and leave is `BatchingLoop`'s; what a turn of the denoiser is stands
here. `batcher.py` makes it.
"""

import asyncio
from collections.abc import Callable

import torch

from atrium_common.telemetry.tally import Tally
from atrium_common.work import BatchingLoop
from atrium_diffusion.batcher.budget import BatchLimits, Budget
from atrium_diffusion.batcher.denoiser import Denoiser
from atrium_diffusion.batcher.order import StepOrder
from atrium_diffusion.batcher.request import Picture, Request
from atrium_diffusion.batcher.ticker import Outcome, Ticker
from atrium_diffusion.domain import PictureMade, PicturePlan
from atrium_diffusion.model import DiffusionModel


class DenoisingLoop(BatchingLoop[Request]):
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
        batches: Tally | None = None,
    ) -> None:
        """Prepares the loop; `start` starts it. The arguments are `StepBatcher`'s."""
        super().__init__(events=events, on_failure=on_failure, name=name, batches=batches)
        self._limits = limits
        self._budget = Budget(limits)
        self._ticker = Ticker(Denoiser(model), self._budget, clock=clock)
        self._order: StepOrder[Picture] = StepOrder()
        self._threads = threads
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

    def _work(self) -> None:
        torch.set_num_threads(self._threads)
        with torch.no_grad():
            super()._work()

    def _turn(self) -> bool:
        self._hand_over()  # who left need not wait for another tick to be told
        # Nobody waits while the first ones begin, so that they may all begin at once.
        begins = self._limits.begins if self.running else self._limits.max_batch
        batch = self._order.choose(self._budget.fits, begins=begins)
        if batch:
            self._tick(batch)
        return bool(batch)

    def _admit(self, request: Request) -> None:
        for plan in request.plan.pictures:
            self._add(request, plan)
        if not request.pictures:
            self._release(request, None)

    def _add(self, request: Request, plan: PicturePlan) -> None:
        if plan.steps == 0 and plan.source is not None:  # strength 0: the source as it is
            made = PictureMade(index=plan.index, pixels=plan.source.pixels)
            self._post(request.mailbox.put, made)
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
        self._count_batch(len(batch), (picture.request for picture in batch))
        self.ticks += 1
        self.picture_steps += len(outcome.stepped)
        for picture, event in outcome.events:
            self._post(picture.request.mailbox.put, event)
            if isinstance(event, PictureMade):
                self._remove(picture)
        for picture, error in outcome.failed:
            self._release(picture.request, error)
        for picture in outcome.stepped:
            if not picture.request.pictures:
                self._release(picture.request, None)

    def _remove(self, picture: Picture) -> None:
        picture.canvas = None
        self._order.remove(picture)
        picture.request.pictures.discard(picture)

    def _let_go(self, request: Request) -> None:
        for picture in tuple(request.pictures):
            self._remove(picture)

    def _hand_over(self) -> None:
        self._count()  # first, so that a reader who asks finds what it was told
        super()._hand_over()

    def _count(self) -> None:
        self.running = sum(p.begun for request in self._requests for p in request.pictures)
