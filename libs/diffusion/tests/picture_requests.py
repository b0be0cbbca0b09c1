"""Requests to plan and draw in tests, and an engine that tells what a test says."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import numpy as np

from atrium_common.catalogue import AdapterEntry, ModelEntry
from atrium_diffusion.domain import Denoising, PictureEvent, PictureJob, Pixels, RequestPlan
from atrium_diffusion.engines.fake import FakeEngine

MODEL = "squares"
ADAPTER = AdapterEntry(id="frost", license="CC0-1.0", kind="lora", models=(MODEL,))


def fake_engine(**options: float) -> FakeEngine:
    """Makes the fake engine with one model, `MODEL`, and one adapter for it."""
    entry = ModelEntry.model_validate(
        {
            "id": MODEL,
            "service": "text2image",
            "capabilities": ["text-to-image", "image-to-image"],
            "engine": "fake",
            "license": "CC0-1.0",
            "options": options,
        }
    )
    return FakeEngine([entry], adapters=[ADAPTER], draw_seed=lambda: 11)


def job(**more: object) -> PictureJob:
    """A request for one red circle in three steps with the seed 7."""
    plain = PictureJob(model=MODEL, prompt="a red circle", denoising=Denoising(steps=3, seed=7))
    return replace(plain, **more)  # type: ignore[arg-type] # any of its fields


def plan(**more: object) -> RequestPlan:
    """What the fake engine decides for `job`."""
    return fake_engine().plan(job(**more))


def noise(width: int, height: int, *, seed: int = 0) -> Pixels:
    """A picture that no encoder makes small."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


class ScriptedEvents:
    """Events of an engine as a test wants them.

    Attributes:
        told: How many were taken from it.
        closed: Set once it was closed or has come to its end.
    """

    def __init__(
        self,
        events: Sequence[PictureEvent],
        *,
        failure: Exception | None = None,
        endless: bool = False,
    ) -> None:
        """Tells `events`, then raises `failure`, or goes on without an end."""
        self._events = events
        self._failure = failure
        self._endless = endless
        self.told = 0
        self.closed = asyncio.Event()

    async def stream(self) -> AsyncGenerator[PictureEvent, None]:
        """Tells them."""
        try:
            for event in self._events:
                await asyncio.sleep(0)
                self.told += 1
                yield event
            if self._failure is not None:
                raise self._failure
            if self._endless:
                await asyncio.Event().wait()
        finally:
            self.closed.set()
