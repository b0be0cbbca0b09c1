"""Draws for the evaluation, with the engine that the picture services draw with."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from PIL import Image

from atrium_common.catalogue import FolderSource, ModelEntry
from atrium_common.errors import AtriumError
from atrium_common.weights import WeightStore
from atrium_diffusion.domain import Denoising, PictureJob, PictureMade, Pixels, Source
from atrium_diffusion.engines.diffusers import DiffusersEngine
from starter_trainer.errors import TrainingError

_MODEL = "evaluated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A picture to draw.

    Attributes:
        prompt: What it shows.
        seed: Of its noise.
        source: A picture to edit, or ``None`` to draw from words alone.
        strength: How much of the source is drawn anew, 0 to 1.
    """

    prompt: str
    seed: int
    source: Image.Image | None = None
    strength: float = 1.0


class Drawer(Protocol):
    """Whatever draws."""

    def draw(self, orders: Sequence[Order]) -> list[Image.Image]:
        """Draws each order, in order."""
        ...


class EngineDrawer:
    """The engine `diffusers` on one folder's model, on the CPU; a context manager."""

    def __init__(
        self, folder: Path, *, side: int = 128, steps: int = 12, guidance_scale: float = 3.0
    ) -> None:
        """Prepares the engine; `with` loads the model.

        Args:
            folder: The model.
            side: Pixels of the square pictures that it was trained on.
            steps: Over the whole noise range.
            guidance_scale: Classifier-free guidance.
        """
        sides: dict[str, int] = dict.fromkeys(
            ("native_width", "native_height", "min_side", "max_side"), side
        )
        entry = ModelEntry(
            id=_MODEL,
            service="text2image",
            capabilities=("text-to-image",),
            engine=DiffusersEngine.name,
            sources=(FolderSource(kind="folder", path=folder.absolute()),),
            options={**sides, "device": "cpu"},
        )
        self._engine = DiffusersEngine([entry], store=WeightStore(folder))
        self._denoising = Denoising(steps=steps, guidance_scale=guidance_scale)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        """Loads the model.

        Raises:
            TrainingError: It can't be loaded; the message says why.
        """
        try:
            self._runner.run(self._engine.load())
        except AtriumError as error:
            self._runner.close()
            raise TrainingError(f"no model to evaluate: {error.message}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(self._engine.close())
        self._runner.close()

    def draw(self, orders: Sequence[Order]) -> list[Image.Image]:
        """Draws each order; the engine shares its steps among all of them."""
        return self._runner.run(self._draw_all(orders))

    async def _draw_all(self, orders: Sequence[Order]) -> list[Image.Image]:
        return list(await asyncio.gather(*(self._draw(order) for order in orders)))

    async def _draw(self, order: Order) -> Image.Image:
        sources = () if order.source is None else (Source(pixels=_pixels(order.source)),)
        job = PictureJob(
            model=_MODEL,
            prompt=order.prompt,
            denoising=replace(self._denoising, seed=order.seed),
            sources=sources,
            strength=order.strength,
        )
        made: list[Pixels] = []
        async with aclosing(self._engine.draw(self._engine.plan(job))) as events:
            async for event in events:
                if isinstance(event, PictureMade):
                    made.append(event.pixels)
        return Image.fromarray(made[0])


def _pixels(picture: Image.Image) -> Pixels:
    return np.asarray(picture.convert("RGB"))
