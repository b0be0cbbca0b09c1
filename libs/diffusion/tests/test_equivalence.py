"""What the batcher draws is what diffusers' own pipelines draw one by one.

With the starter model in float32. Kernels add in another order in batches of another
size, so values may round to the next grey level; more than one level is a defect.
"""

import asyncio
import random
import threading
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from atrium_diffusion.batcher import BatchLimits, StepBatcher
from atrium_diffusion.domain import (
    Denoising,
    PictureJob,
    PictureMade,
    PicturePlan,
    Pixels,
    RequestPlan,
    SchedulerKind,
    Source,
    StepTaken,
)
from atrium_diffusion.sdxl.model import SdxlModel
from atrium_diffusion.sdxl.schedulers import RECIPES

pytestmark = pytest.mark.model

PROMPTS = ("a red circle", "three green stars", "two blue squares", "a yellow triangle")
SIDES = (64, 96)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One random request.

    Attributes:
        size: Height and width.
        source_seed: Of the picture that it is made from; ``None`` for text alone.
        arrival: UNet call at which it comes.
        leaves_after: Steps after which its caller leaves; ``None`` for never.
    """

    prompt: str
    negative: str
    steps: int
    guidance: float
    seed: int
    scheduler: SchedulerKind
    size: tuple[int, int]
    source_seed: int | None
    masked: bool
    strength: float
    deterministic: bool = False
    arrival: int = 0
    leaves_after: int | None = None

    def source(self) -> Source | None:
        """Blocks of colour, and a mask over one side."""
        if self.source_seed is None:
            return None
        height, width = self.size
        colours = np.random.default_rng(self.source_seed).integers(
            0, 256, (height // 16, width // 16, 3), dtype=np.uint8
        )
        mask = np.zeros(self.size, dtype=np.float32)
        mask[: height // 2, 8:] = 1
        return Source(
            pixels=colours.repeat(16, axis=0).repeat(16, axis=1),
            mask=mask if self.masked else None,
        )

    def plan(self) -> RequestPlan:
        """The request as an engine plans it."""
        source = self.source()
        height, width = self.size
        taken = min(int(self.steps * self.strength), self.steps) if source else self.steps
        picture = PicturePlan(
            index=0, width=width, height=height, seed=self.seed, steps=taken, source=source
        )
        return RequestPlan(
            job=PictureJob(
                model="starter",
                prompt=self.prompt,
                negative_prompt=self.negative,
                strength=self.strength,
                denoising=Denoising(deterministic=self.deterministic),
                tenant=str(self.seed % 3),
            ),
            pictures=(picture,),
            schedule_steps=self.steps,
            guidance_scale=self.guidance,
            scheduler=self.scheduler,
        )


def asked(random_: random.Random, kinds: tuple[SchedulerKind, ...] = tuple(SchedulerKind)) -> Asked:
    """Draws a request."""
    made_from = random_.choice(["text", "text", "picture", "mask"])
    return Asked(
        prompt=random_.choice(PROMPTS),
        negative=random_.choice(["", "blue", "a square"]),
        steps=random_.randint(2, 8),
        guidance=random_.choice([1.0, 1.5, 3.0, 6.5]),
        seed=random_.randrange(2**63),
        scheduler=random_.choice(kinds),
        size=(random_.choice(SIDES), 64),
        source_seed=None if made_from == "text" else random_.randrange(2**31),
        masked=made_from == "mask",
        strength=random_.choice([0.5, 0.75, 1.0]) if made_from != "text" else 1.0,
        deterministic=random_.random() < 0.1,
        arrival=random_.randint(0, 40),
        leaves_after=random_.choice([None] * 5 + [1, 2]),
    )


class InpaintPipeline(StableDiffusionXLInpaintPipeline):
    """Encodes the source as the other pipelines do.

    Diffusers' forgets what they remember: the mean and deviation of an autoencoder's
    latents, which the starter model's has (SDXL's own has none), though it decodes by them.
    """

    def _encode_vae_image(self, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        latents: torch.Tensor = super()._encode_vae_image(image, generator)  # type: ignore[misc]
        config = self.vae.config  # type: ignore[attr-defined]
        mean = torch.tensor(config.latents_mean).view(1, -1, 1, 1)
        deviation = torch.tensor(config.latents_std).view(1, -1, 1, 1)
        normal: torch.Tensor = (latents - mean * config.scaling_factor) / deviation
        return normal


class OneByOne:
    """Diffusers' own pipelines over one set of weights."""

    def __init__(self, pipe: Any) -> None:
        parts = pipe.components
        parts = {name: part for name, part in parts.items() if name != "scheduler"}
        self._config = pipe.scheduler.config
        self._pipes: dict[str, Any] = {
            "text": StableDiffusionXLPipeline,
            "picture": StableDiffusionXLImg2ImgPipeline,
            "mask": InpaintPipeline,
        }
        for name, kind in self._pipes.items():
            self._pipes[name] = kind(**parts, scheduler=pipe.scheduler, add_watermarker=False)
            self._pipes[name].set_progress_bar_config(disable=True)

    def draw(self, one: Asked) -> Pixels:
        """Draws a request alone."""
        recipe = RECIPES[one.scheduler]
        source = one.source()
        options: dict[str, Any] = {}
        if source is not None:
            options = {"image": Image.fromarray(source.pixels), "strength": one.strength}
        name = "text" if source is None else "picture"
        if source is not None and source.mask is not None:
            name = "mask"
            options["mask_image"] = Image.fromarray((source.mask * 255).astype(np.uint8))
        if name != "picture":
            options |= {"height": one.size[0], "width": one.size[1]}
        pipe = self._pipes[name]
        pipe.scheduler = recipe.scheduler.from_config(  # type: ignore[attr-defined]
            self._config, **recipe.overrides
        )
        made = pipe(
            prompt=one.prompt,
            negative_prompt=one.negative or None,
            num_inference_steps=one.steps,
            guidance_scale=one.guidance,
            generator=torch.Generator("cpu").manual_seed(one.seed),
            # The pipelines take 0 where nothing is said, TCD's own default is its paper's.
            eta=0.3 if one.scheduler is SchedulerKind.TCD else 0.0,
            **options,
        ).images[0]
        pixels: Pixels = np.asarray(made)
        if source is not None and source.mask is not None:
            pixels = np.where(source.mask[:, :, None] > 0, pixels, source.pixels)
        return pixels


@pytest.fixture(scope="module")
def one_by_one(starter_pipe: StableDiffusionXLPipeline) -> OneByOne:
    return OneByOne(starter_pipe)


@asynccontextmanager
async def batching(model: SdxlModel) -> AsyncIterator[StepBatcher]:
    batcher = StepBatcher(
        model,
        limits=BatchLimits(max_batch=8),
        events=asyncio.get_running_loop(),
        name="equivalence",
        on_failure=pytest.fail,
    )
    batcher.start()
    try:
        yield batcher
    finally:
        await asyncio.to_thread(batcher.stop)


async def drawn(batcher: StepBatcher, one: Asked) -> Pixels | None:
    """Draws a request; ``None`` if its caller left before the end."""
    async with aclosing(batcher.draw(one.plan())) as events:
        async for event in events:
            if isinstance(event, PictureMade):
                return event.pixels
            if isinstance(event, StepTaken) and event.step == one.leaves_after:
                return None
    raise AssertionError("the request ended without a picture")


class Timetable:
    """Brings each request at its UNet call, however slow the machine is.

    The batcher's thread waits before a call until all that are due by then have come.
    """

    def __init__(self, model: SdxlModel, requests: Sequence[Asked]) -> None:
        self._predict = model.predict
        self._due = sorted(one.arrival for one in requests)
        self._requests = sorted(requests, key=lambda one: one.arrival)
        self._calls = self._sent = 0
        self._changed = threading.Condition()
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()

    def predict(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """Takes the place of the model's own."""
        with self._changed:
            self._calls += 1
            self._loop.call_soon_threadsafe(self._news.set)
            due = bisect_right(self._due, self._calls)
            self._changed.wait_for(lambda: self._sent >= due)
        return self._predict(*arguments, **options)

    async def run(self, batcher: StepBatcher) -> list[tuple[Asked, Pixels | None]]:
        """Draws all of them; what a caller got who stayed, ``None`` for those who left."""
        tasks: list[asyncio.Task[Pixels | None]] = []
        try:
            for one in self._requests:
                # An idle batcher makes no calls: then the next one comes at once.
                while self._calls < one.arrival and not all(task.done() for task in tasks):
                    await self._news.wait()
                    self._news.clear()
                tasks.append(asyncio.create_task(drawn(batcher, one)))
                tasks[-1].add_done_callback(lambda _: self._news.set())
                await asyncio.sleep(0)  # it is in line when it waits for its first event
                self._tell(self._sent + 1)
            return list(zip(self._requests, await asyncio.gather(*tasks), strict=True))
        finally:
            self._tell(len(self._requests))

    def _tell(self, sent: int) -> None:
        with self._changed:
            self._sent = sent
            self._changed.notify_all()


async def together(
    model: SdxlModel, requests: Sequence[Asked]
) -> tuple[list[tuple[Asked, Pixels | None]], StepBatcher]:
    """Draws requests by one batcher, each from its arrival on."""
    timetable = Timetable(model, requests)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "predict", timetable.predict)
        async with batching(model) as batcher:
            made = await timetable.run(batcher)
            assert batcher.running == batcher.waiting == 0
    return made, batcher


def difference(made: Pixels, expected: Pixels) -> int:
    """Grey levels between two pictures, at their worst value."""
    assert made.shape == expected.shape
    return int(np.abs(made.astype(int) - expected).max())


QUARTERS = range(4)
"""Diffusers draws them one by one; a quarter of them is a test, for slow machines' sake."""


@pytest.fixture(scope="module")
async def drawn_together(starter_model: SdxlModel) -> list[tuple[Asked, Pixels]]:
    """64 random requests and their pictures, but for those whose callers left."""
    random_ = random.Random(4)  # noqa: S311
    requests = [asked(random_) for _ in range(64)]
    assert {one.scheduler for one in requests} == set(SchedulerKind)
    made, batcher = await together(starter_model, requests)
    assert batcher.unet_calls < batcher.picture_steps / 2
    finished = [(one, pixels) for one, pixels in made if pixels is not None]
    assert 40 <= len(finished) < 64
    return finished


@pytest.mark.parametrize("quarter", QUARTERS)
async def test_64_random_requests_are_drawn_as_diffusers_draws_them(
    drawn_together: list[tuple[Asked, Pixels]], one_by_one: OneByOne, quarter: int
) -> None:
    for one, pixels in drawn_together[quarter :: len(QUARTERS)]:
        assert difference(pixels, one_by_one.draw(one)) <= 1, one


@given(st.lists(st.integers(0, 2**32), min_size=2, max_size=4))
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_any_set_of_requests_is_drawn_as_diffusers_draws_it(
    starter_model: SdxlModel,
    one_by_one: OneByOne,
    seeds: list[int],
) -> None:
    requests = [asked(random.Random(seed)) for seed in seeds]  # noqa: S311
    made, _ = await together(starter_model, requests)
    for one, pixels in made:
        assert pixels is None or difference(pixels, one_by_one.draw(one)) <= 1, one


async def test_a_deterministic_picture_has_the_same_bytes_whatever_the_load(
    starter_model: SdxlModel,
) -> None:
    random_ = random.Random(6)  # noqa: S311
    exact = Asked(
        prompt=PROMPTS[0],
        negative="",
        steps=6,
        guidance=3.0,
        seed=1,
        scheduler=SchedulerKind.EULER_ANCESTRAL,
        size=(64, 64),
        source_seed=None,
        masked=False,
        strength=1.0,
        deterministic=True,
    )
    async with batching(starter_model) as batcher:
        alone = await drawn(batcher, exact)
        others = [asyncio.create_task(drawn(batcher, asked(random_))) for _ in range(6)]
        again = await drawn(batcher, exact)
        await asyncio.gather(*others)
    assert alone is not None
    assert again is not None
    np.testing.assert_array_equal(alone, again)
