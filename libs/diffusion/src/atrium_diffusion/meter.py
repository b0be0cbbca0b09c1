"""Counts what one request consumes; `finishing.py` puts it on every step of the answer."""

from dataclasses import replace
from datetime import timedelta

from atrium_common.domain import Usage
from atrium_diffusion.domain import (
    PictureEvent,
    PictureMade,
    PreviewMade,
    RequestPlan,
    StepTaken,
    counted,
)


class PictureMeter:
    """The cumulative usage of one request: steps as they are taken, pictures as they end."""

    def __init__(self, plan: RequestPlan, *, engine: str, queue_time: timedelta) -> None:
        """Begins with the wait alone.

        Args:
            plan: The request.
            engine: Registry name of its engine.
            queue_time: How long it waited for its place.
        """
        self._plan = plan
        self._wait = Usage(
            model=plan.job.model, model_digest=plan.digest, engine=engine, queue_time=queue_time
        )
        self._steps = dict.fromkeys(range(len(plan.pictures)), 0)
        self._pixel_steps = 0
        self._images = 0
        self._seconds = 0.0

    def count(self, event: PictureEvent) -> None:
        """Counts an event of the engine."""
        match event:
            case StepTaken():
                # An engine that skips telling of a step has taken it all the same.
                new = max(0, event.step - self._steps[event.index])
                self._steps[event.index] += new
                picture = self._plan.pictures[event.index]
                self._pixel_steps += new * picture.width * picture.height
                self._seconds += event.seconds
            case PictureMade():
                self._images += 1
                self._seconds += event.seconds
            case PreviewMade():
                pass

    def usage(self) -> Usage:
        """Returns everything so far."""
        return replace(
            self._wait,
            inference_time=timedelta(seconds=self._seconds),
            images=self._images,
            millimegapixel_steps=counted(self._pixel_steps),
        )
