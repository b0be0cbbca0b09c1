"""An engine without a model: coloured squares that depend on everything that was asked.

For contract, load and cancellation tests, here and in the gateway. It honours every field,
so that the wire can be tested to the last one; the same request gives the same pixels.
"""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from pydantic import Field

from atrium_common.catalogue import AdapterEntry, ModelEntry
from atrium_common.domain import ModelInfo
from atrium_common.engine_models import find_model
from atrium_common.engine_options import EngineOptions, read_options
from atrium_common.errors import InvalidArgument
from atrium_common.lifecycle import Lifecycle, weightless_host
from atrium_common.weights import WeightStore
from atrium_common.work import Batching
from atrium_diffusion.domain import (
    ModelLimits,
    PictureEvent,
    PictureJob,
    PictureMade,
    PicturePlan,
    Pixels,
    PreviewMade,
    RequestPlan,
    SchedulerKind,
    StepTaken,
)
from atrium_diffusion.planning import Planner

SQUARE = 8
"""Pixels of a side of the squares that it draws."""

_GREY = 128
_REQUESTS = 256


class FakeOptions(EngineOptions):
    """Options of the engine `fake`, with their defaults."""

    seconds_per_step: float = Field(default=0.0, ge=0)
    """Pause before each step of a request."""

    native_side: int = Field(default=64, ge=16, le=1024, multiple_of=SQUARE)
    """Width and height where none are given."""

    default_steps: int = Field(default=4, ge=1, le=150)
    """Steps where none are given."""

    prompt_words: int = Field(default=77, ge=1)
    """Longest prompt that is read, in words."""


@dataclass(frozen=True, slots=True)
class _Model:
    options: FakeOptions
    planner: Planner


class FakeEngine:
    """Draws squares; meets `PictureEngine`.

    Attributes:
        started: Requests that were begun, for tests of cancellation.
        steps: Steps that were taken, over all requests.
        running: Requests that are being drawn now.
        drawn: What was asked for, in order.
    """

    name = "fake"
    scheduling = Batching(_REQUESTS)

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        store: WeightStore | None = None,
        adapters: Sequence[AdapterEntry] = (),
        lifecycle: Lifecycle | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        draw_seed: Callable[[], int] = lambda: secrets.randbelow(2**32),
    ) -> None:
        """Reads the entries.

        Args:
            entries: The models, in catalogue order.
            store: Not used; there are no weights.
            adapters: The catalogue's adapters.
            lifecycle: Shared by the process's engines; see `ModelHost`.
            now: Aware UTC, for what `models` reports.
            draw_seed: Draws the seeds of requests that name none.

        Raises:
            CatalogueError: An entry has an option that this engine does not know.
        """
        self._models = {entry.id: _model(entry, adapters, draw_seed) for entry in entries}
        self._host = weightless_host(self.name, entries, lifecycle=lifecycle, now=now)
        self.started = 0
        self.steps = 0
        self.running = 0
        self.drawn: list[RequestPlan] = []

    async def load(self) -> None:
        """Loads the models that are to be ready at start; see `ModelHost.load`."""
        await self._host.load()

    async def load_model(self, model: str) -> None:
        """Loads and verifies one model; see `ModelHost.load_model`."""
        await self._host.load_model(model)

    async def unload_model(self, model: str) -> None:
        """Frees a model's memory; see `ModelHost.unload_model`."""
        await self._host.unload_model(model)

    async def close(self) -> None:
        """Has nothing to free."""
        await self._host.close()

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order."""
        return self._host.models()

    async def verify(self, model: str) -> None:
        """Succeeds for a model that is loaded."""
        await self._host.verify(model)

    def limits(self, model: str) -> ModelLimits:
        """Tells what the model takes."""
        return self._find(model).planner.limits

    def check_ready(self, model: str) -> None:
        """Refuses a model that has failed; see `ModelHost.check`."""
        self._host.check(model)

    def plan(self, job: PictureJob) -> RequestPlan:
        """Decides everything about a request."""
        model = self._find(job.model)
        most = model.options.prompt_words
        for field, text in (("prompt", job.prompt), ("negative_prompt", job.negative_prompt)):
            if len(text.split()) > most and not job.truncate_prompt:
                raise InvalidArgument(
                    f"At most {most} words are read; shorten it or let it be truncated.",
                    reason="PROMPT_TOO_LONG",
                    field=field,
                )
        return model.planner.plan(job)

    async def draw(self, plan: RequestPlan) -> AsyncGenerator[PictureEvent, None]:
        """Draws a request; its pictures take each step together."""
        model = self._find(plan.job.model)
        async with self._host.use(plan.job.model):
            self.started += 1
            self.drawn.append(plan)
            self.running += 1
            try:
                async with aclosing(self._draw(plan, model.options)) as events:
                    async for event in events:
                        yield event
            finally:
                self.running -= 1

    async def _draw(
        self, plan: RequestPlan, options: FakeOptions
    ) -> AsyncGenerator[PictureEvent, None]:
        pictures = plan.pictures
        seconds = options.seconds_per_step / len(pictures)
        finished = await asyncio.to_thread(_finished, plan, options.prompt_words)
        interval, side = plan.job.preview.interval, plan.job.preview.max_side
        for step in range(1, pictures[0].steps + 1):
            await asyncio.sleep(options.seconds_per_step)
            for picture in pictures:
                self.steps += 1
                yield StepTaken(
                    index=picture.index, step=step, steps=picture.steps, seconds=seconds
                )
                if interval and step % interval == 0 and step < picture.steps:
                    view = _preview(finished[picture.index], side, step / picture.steps)
                    yield PreviewMade(index=picture.index, step=step, pixels=view)
        for picture in pictures:
            yield PictureMade(index=picture.index, pixels=finished[picture.index])

    def _find(self, model: str) -> _Model:
        return find_model(self._models, model)


def _model(
    entry: ModelEntry, adapters: Sequence[AdapterEntry], draw_seed: Callable[[], int]
) -> _Model:
    options = read_options(FakeOptions, entry)
    fitting = {adapter.id: adapter for adapter in adapters if entry.id in adapter.models}
    limits = ModelLimits(
        model=entry.id,
        native_width=options.native_side,
        native_height=options.native_side,
        min_side=16,
        max_side=1024,
        max_pixels=1024 * 1024,
        default_steps=options.default_steps,
        default_guidance_scale=5.0,
        default_scheduler=SchedulerKind.EULER,
        loras=tuple(fitting),
    )
    planner = Planner(
        limits=limits,
        adapters=fitting,
        digest=entry.digest,
        engine="fake 1",
        draw_seed=draw_seed,
    )
    return _Model(options, planner)


def _finished(plan: RequestPlan, words: int) -> list[Pixels]:
    return [_finish(plan, picture, words) for picture in plan.pictures]


def _finish(plan: RequestPlan, picture: PicturePlan, words: int) -> Pixels:
    """Returns the squares, blended into the source where there is one."""
    drawn = _squares(plan, picture, words)
    source = picture.source
    if source is None:
        return drawn
    change = np.float32(plan.job.strength) * (drawn.astype(np.float32) - source.pixels)
    if source.mask is not None:
        change *= source.mask[:, :, np.newaxis]
    return np.rint(source.pixels + change).astype(np.uint8)


def _squares(plan: RequestPlan, picture: PicturePlan, words: int) -> Pixels:
    facts = (
        plan.job.prompt.split()[:words],
        plan.job.negative_prompt.split()[:words] if plan.guidance_scale > 1 else [],
        picture.seed,
        plan.schedule_steps,
        plan.guidance_scale,
        plan.scheduler,
        plan.loras,
    )
    digest = hashlib.sha256(repr(facts).encode()).digest()
    colours = np.random.default_rng(int.from_bytes(digest, "big"))
    rows, columns = picture.height // SQUARE, picture.width // SQUARE
    grid = colours.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    return grid.repeat(SQUARE, axis=0).repeat(SQUARE, axis=1)


def _preview(pixels: Pixels, side: int, share: float) -> Pixels:
    """Returns the picture at `side` pixels of its longer side, `share` of the way from grey."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    rows, columns = (
        np.arange(max(1, round(length * scale))) * length // max(1, round(length * scale))
        for length in (height, width)
    )
    small = pixels[rows][:, columns].astype(np.float32)
    view: Pixels = np.rint(_GREY + np.float32(share) * (small - _GREY)).astype(np.uint8)
    return view
