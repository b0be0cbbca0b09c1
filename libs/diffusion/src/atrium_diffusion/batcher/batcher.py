"""The face of the batcher on the event loop; engines make one for each loaded model."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from atrium_common.telemetry.tally import Tally
from atrium_diffusion.batcher.budget import BatchLimits
from atrium_diffusion.batcher.loop import DenoisingLoop
from atrium_diffusion.batcher.request import Request
from atrium_diffusion.domain import PictureEvent, RequestPlan
from atrium_diffusion.model import DiffusionModel


class StepBatcher:
    """Draws requests with one model, sharing each denoising step among them."""

    def __init__(
        self,
        model: DiffusionModel,
        *,
        limits: BatchLimits,
        events: asyncio.AbstractEventLoop,
        name: str,
        threads: int = 1,
        clock: Callable[[], float] = time.monotonic,
        on_failure: Callable[[str], None],
        batches: Tally | None = None,
    ) -> None:
        """Prepares the batcher; `start` starts its thread.

        Args:
            model: From now on only the batcher's thread may use it.
            limits: How much one UNet call may take.
            events: The event loop that readers live on.
            name: Of the thread, shown in stack dumps.
            threads: CPU threads that one operation may use.
            clock: Monotonic seconds.
            on_failure: Called on `events` with one line if the device is lost.
            batches: Counts the pictures of each tick.
        """
        self._loop = DenoisingLoop(
            model,
            limits=limits,
            events=events,
            name=name,
            threads=threads,
            clock=clock,
            on_failure=on_failure,
            batches=batches,
        )

    @property
    def running(self) -> int:
        """Pictures that have begun and are not finished."""
        return self._loop.running

    @property
    def waiting(self) -> int:
        """Pictures that have not begun."""
        return self._loop.waiting

    @property
    def ticks(self) -> int:
        """Ticks taken."""
        return self._loop.ticks

    @property
    def unet_calls(self) -> int:
        """UNet calls made; one per tick but where a failure took pictures apart."""
        return self._loop.unet_calls

    @property
    def picture_steps(self) -> int:
        """Steps taken, of all pictures together."""
        return self._loop.picture_steps

    def start(self) -> None:
        """Starts the thread. Once."""
        self._loop.start()

    def stop(self) -> None:
        """Ends the thread; what still runs fails as `Unavailable`. Blocks for a step."""
        self._loop.stop()

    async def draw(self, plan: RequestPlan) -> AsyncGenerator[PictureEvent, None]:
        """Draws a request. Pictures may finish in any order.

        Closing the iterator cancels the request; the close returns when the batcher has
        let go of it, within one step.

        Raises:
            InvalidArgument: A prompt is longer than the model reads.
            Unavailable: The batcher was stopped, or the device is lost.
            Overloaded: The device has not enough memory even for one picture alone.
            InternalError: A step failed.
        """
        request = Request(plan)
        self._loop.submit(request)
        try:
            while (event := await request.mailbox.get()) is not None:
                yield event
        finally:
            if not request.mailbox.ended:
                self._loop.cancel(request)
                await request.mailbox.drained()
