"""One tick over a batch: begin, predict, step, preview, decode. `loop.py` calls it.

A failure stays with its picture. Where memory runs out, fewer pictures try the same step
again: the UNet call comes before any scheduler's step, so nothing has changed yet.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from atrium_common.errors import AtriumError, InternalError, Overloaded
from atrium_diffusion.batcher.budget import Budget
from atrium_diffusion.batcher.canvas import Canvas
from atrium_diffusion.batcher.denoiser import Denoiser
from atrium_diffusion.batcher.request import Picture
from atrium_diffusion.domain import PictureEvent, PictureMade, PreviewMade, StepTaken

_log = logging.getLogger(__name__)

T = TypeVar("T")

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch says where it has no class of its own for it, on a CPU above all."""


@dataclass(slots=True)
class Outcome:
    """What a tick came to.

    Attributes:
        stepped: Pictures that took a step, in the batch's order.
        events: What their readers are told, in order.
        failed: Pictures that can't go on, and why.
    """

    stepped: list[Picture] = field(default_factory=list)
    events: list[tuple[Picture, PictureEvent]] = field(default_factory=list)
    failed: list[tuple[Picture, AtriumError]] = field(default_factory=list)


class Ticker:
    """Takes ticks with one denoiser.

    Attributes:
        unet_calls: UNet calls that went well.
    """

    def __init__(self, denoiser: Denoiser, budget: Budget, *, clock: Callable[[], float]) -> None:
        """Takes the denoiser, the budget that learns from it, and monotonic seconds."""
        self._denoiser = denoiser
        self._budget = budget
        self._clock = clock
        self.unet_calls = 0

    def begin(self, batch: Sequence[Picture], outcome: Outcome) -> list[Picture]:
        """Begins those of a batch that are new; returns those that can take a step."""
        return [picture for picture in batch if self._begin(picture, outcome)]

    def step(self, batch: Sequence[Picture], outcome: Outcome) -> None:
        """Takes one step of these pictures, of one group; of fewer if memory runs out.

        Raises:
            torch.AcceleratorError: The device is lost.
        """
        started = self._clock()
        predicted = self._predict(batch, outcome)
        self._advance(predicted, outcome)
        self._share(started, [picture for picture, _ in predicted])
        for picture in outcome.stepped:
            self._tell(picture, outcome)
        finished = [p for p in outcome.stepped if _canvas(p).finished and not p.request.cancelled]
        self._decode(finished, outcome)

    def _begin(self, picture: Picture, outcome: Outcome) -> bool:
        if picture.canvas is not None:
            return True
        started = self._clock()
        request, plan = picture.request.plan, picture.plan
        made = self._attempt(lambda: self._denoiser.begin(request, plan))
        if isinstance(made, Overloaded):  # the reserve was freed meanwhile
            made = self._attempt(lambda: self._denoiser.begin(request, plan))
        if isinstance(made, AtriumError):
            outcome.failed.append((picture, made))
            return False
        picture.canvas, picture.begun = made, True
        picture.seconds += self._clock() - started
        return True

    def _predict(self, batch: Sequence[Picture], outcome: Outcome) -> list[tuple[Picture, Tensor]]:
        if not batch:
            return []
        made = self._attempt(lambda: self._denoiser.predict([_canvas(p) for p in batch]))
        if not isinstance(made, AtriumError):
            self.unet_calls += 1
            self._budget.succeeded()
            return list(zip(batch, made, strict=True))
        if len(batch) == 1:
            outcome.failed.append((batch[0], made))
            return []
        if isinstance(made, Overloaded):
            self._budget.shrink(sum(picture.load for picture in batch))
            return self._predict(batch[: len(batch) // 2], outcome)
        # One of them is bad: each alone, so that the others go on.
        return [pair for picture in batch for pair in self._predict([picture], outcome)]

    def _advance(self, predicted: Sequence[tuple[Picture, Tensor]], outcome: Outcome) -> None:
        moved = [
            picture
            for picture, prediction in predicted
            if self._advance_one(picture, prediction, outcome)
        ]
        if not moved:
            return
        finite = self._attempt(lambda: self._denoiser.finite([_canvas(p) for p in moved]))
        for i, picture in enumerate(moved):
            if isinstance(finite, AtriumError):
                outcome.failed.append((picture, finite))
            elif finite[i]:
                outcome.stepped.append(picture)
            else:
                outcome.failed.append((picture, _broken("NOT_FINITE")))

    def _advance_one(self, picture: Picture, prediction: Tensor, outcome: Outcome) -> bool:
        error = self._attempt(lambda: self._denoiser.advance(_canvas(picture), prediction))
        if error is not None:
            outcome.failed.append((picture, error))
        return error is None

    def _share(self, started: float, pictures: Sequence[Picture]) -> None:
        """Divides a UNet call's time by rows: pixels are the same for all."""
        seconds = self._clock() - started
        load = sum(picture.load for picture in pictures)
        for picture in pictures:
            picture.seconds += seconds * picture.load / load

    def _tell(self, picture: Picture, outcome: Outcome) -> None:
        canvas, options = _canvas(picture), picture.request.plan.job.preview
        index, step = picture.plan.index, canvas.position
        taken = StepTaken(index=index, step=step, steps=picture.plan.steps, seconds=_told(picture))
        outcome.events.append((picture, taken))
        if not options.interval or step % options.interval or canvas.finished:
            return
        started = self._clock()
        pixels = self._attempt(lambda: self._denoiser.preview(canvas, options.max_side))
        picture.seconds += self._clock() - started
        if isinstance(pixels, AtriumError):
            outcome.failed.append((picture, pixels))
        else:
            preview = PreviewMade(index=index, step=step, pixels=pixels)
            outcome.events.append((picture, preview))

    def _decode(self, finished: Sequence[Picture], outcome: Outcome) -> None:
        if not finished:
            return
        started = self._clock()
        made = self._attempt(lambda: self._denoiser.decode([_canvas(p) for p in finished]))
        if isinstance(made, AtriumError):
            if len(finished) == 1:
                outcome.failed.append((finished[0], made))
                return
            half = len(finished) // 2
            self._decode(finished[:half], outcome)
            self._decode(finished[half:], outcome)
            return
        seconds = (self._clock() - started) / len(finished)
        for picture, pixels in zip(finished, made, strict=True):
            picture.seconds += seconds
            done = PictureMade(index=picture.plan.index, pixels=pixels, seconds=_told(picture))
            outcome.events.append((picture, done))

    def _attempt(self, work: Callable[[], T]) -> T | AtriumError:
        """Does something on the device; what goes wrong is returned, for it has an owner."""
        try:
            return work()
        except AtriumError as error:
            return error
        except Exception as error:
            # The device's edge: any of its errors concerns this work, not the thread.
            failure = _failure(error)
        if isinstance(failure, Overloaded):
            self._denoiser.free_memory()  # the exception and what its frames held are gone
        return failure


def _failure(error: Exception) -> AtriumError:
    """Says what an error means for a picture; raises it if it means the device is lost."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(said in str(error) for said in _NO_MEMORY)
    ):
        return Overloaded(
            "The device has not enough memory for this picture.", reason="OUT_OF_MEMORY"
        )
    if isinstance(error, torch.AcceleratorError):
        raise error
    _log.exception("a step of the denoiser failed", exc_info=error)
    return _broken("ENGINE_STEP_FAILED")


def _broken(reason: str) -> InternalError:
    return InternalError("The picture could not be drawn.", reason=reason)


def _canvas(picture: Picture) -> Canvas:
    if picture.canvas is None:
        raise ValueError("the picture has not begun")
    return picture.canvas


def _told(picture: Picture) -> float:
    """Takes the seconds that nobody was told of yet."""
    seconds, picture.seconds = picture.seconds, 0.0
    return seconds
