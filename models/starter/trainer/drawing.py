"""Draws for the evaluation: through diffusers' own pipelines, on one folder's model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from PIL import Image

from trainer.errors import TrainingError

_BATCH = 8


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
        """Draws each order, in order; all with a source, of one strength, or none with one."""
        ...


class PipelineDrawer:
    """Diffusers' pipelines in full precision, on the CPU."""

    def __init__(self, folder: Path, *, steps: int, guidance_scale: float) -> None:
        if not (folder / "model_index.json").is_file():
            raise TrainingError(f"{folder} holds no model; train one first")
        self._text: StableDiffusionXLPipeline = StableDiffusionXLPipeline.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, add_watermarker=False
        )
        self._edit = StableDiffusionXLImg2ImgPipeline(
            **self._text.components, add_watermarker=False
        )
        for pipeline in (self._text, self._edit):
            pipeline.set_progress_bar_config(disable=True)
        self._steps, self._guidance_scale = steps, guidance_scale

    def draw(self, orders: Sequence[Order]) -> list[Image.Image]:
        """Draws each order, eight at a time."""
        pictures: list[Image.Image] = []
        for first in range(0, len(orders), _BATCH):
            pictures += self._batch(orders[first : first + _BATCH])
        return pictures

    def _batch(self, orders: Sequence[Order]) -> list[Image.Image]:
        shared = {
            "prompt": [order.prompt for order in orders],
            "generator": [torch.Generator().manual_seed(order.seed) for order in orders],
            "num_inference_steps": self._steps,
            "guidance_scale": self._guidance_scale,
        }
        if orders[0].source is None:
            drawn: list[Image.Image] = self._text(**shared).images
        else:
            sources = [order.source for order in orders]
            drawn = self._edit(**shared, image=sources, strength=orders[0].strength).images
        return drawn
