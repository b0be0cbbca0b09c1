"""What the captioner learns from: rendered scenes, and scenes as the starter picture model draws
them, each as it may arrive: soft, noisy, re-encoded, scaled, on a wider canvas.
"""

import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from atrium_diffusion.testing.judge import judge
from atrium_diffusion.testing.shapes import (
    COLOURS,
    SHAPES,
    Scene,
    caption,
    random_scene,
    render,
    seeded,
    several,
)
from starter_trainer.drawing import Drawer, Order
from starter_trainer.fit import Say

_SOURCE_SIDES = (64, 96, 128, 128, 128, 192, 256)
"""Pixels; most pictures come as the picture model makes them."""
_WIDEST = 1.25
"""A canvas is at most this much wider, or higher, than the scene on it."""
_BATCH = 60
_FIRST_SEED = 500_000
"""Far from the seeds that the evaluation draws with."""


@dataclass(frozen=True, slots=True, eq=False)
class Sights:
    """Pictures and what they show.

    Attributes:
        scenes: One for each picture.
        pixels: Grey levels, 0 to 255, shape (scenes, 3, side, side).
    """

    scenes: tuple[Scene, ...]
    pixels: Tensor


def shrunk(picture: Image.Image, side: int) -> Tensor:
    """A picture as the processor hands it on, before it is normalised: shape (3, side, side)."""
    small = picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)


def roughened(picture: Image.Image, random: Random) -> Image.Image:
    """A picture after what happens to pictures on their way; often nothing does."""
    if random.random() < 0.2:
        picture = _on_canvas(picture, random)
    if random.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 1.2)))
    if random.random() < 0.4:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=random.randint(40, 95))
        picture = Image.open(file)
    return picture


def _on_canvas(picture: Image.Image, random: Random) -> Image.Image:
    """On a canvas of another aspect ratio, in the colour of the picture's corner."""
    room = round(random.uniform(0, _WIDEST - 1) * picture.width)
    before = random.randint(0, room)
    border = (before, 0, room - before, 0) if random.random() < 0.5 else (0, before, 0, room)
    corner = picture.getpixel((0, 0))
    return ImageOps.expand(picture, border, corner if isinstance(corner, tuple) else 0)


def rendered(count: int, *, side: int) -> Sights:
    """Renders random scenes."""
    random = seeded("sights")
    scenes = tuple(random_scene(random) for _ in range(count))
    pixels = [
        shrunk(roughened(render(scene, random, side=random.choice(_SOURCE_SIDES)), random), side)
        for scene in scenes
    ]
    return Sights(scenes, torch.stack(pixels))


def drawn(
    count: int,
    *,
    side: int,
    studio: Callable[[], AbstractContextManager[Drawer]],
    cache: Path,
    say: Say,
) -> Sights:
    """Has scenes drawn from their captions, and keeps what the judge accepts.

    Each accepted picture comes twice: as it was drawn, and roughened.

    Args:
        count: Pictures to draw, half of them plain ones.
        side: Of the pictures kept, in pixels.
        studio: Opens what draws; not called where `cache` exists.
        cache: File; what it holds is not drawn again.
        say: Told how far it is.
    """
    random = seeded("drawn")
    scenes = [random.choice((_plain_scene, random_scene))(random) for _ in range(count)]
    if not cache.exists():
        with studio() as drawer:
            kept, pixels = _accepted(scenes, drawer, side=side, random=random, say=say)
        draft = cache.with_suffix(".part")
        torch.save({"kept": kept, "pixels": pixels}, draft)
        draft.replace(cache)
    saved = torch.load(cache, weights_only=True)
    return Sights(tuple(scenes[place] for place in saved["kept"]), saved["pixels"])


def _accepted(
    scenes: Sequence[Scene], drawer: Drawer, *, side: int, random: Random, say: Say
) -> tuple[list[int], Tensor]:
    """The places of the scenes that were drawn well, and their pictures."""
    kept, pixels = [], []
    for first in range(0, len(scenes), _BATCH):
        batch = range(first, min(first + _BATCH, len(scenes)))
        orders = [Order(prompt=caption(scenes[at]), seed=_FIRST_SEED + at) for at in batch]
        for place, picture in zip(batch, drawer.draw(orders), strict=True):
            if judge(picture, scenes[place]).right:
                kept += [place, place]
                pixels += [shrunk(picture, side), shrunk(roughened(picture, random), side)]
        say(f"drawn     {batch.stop / len(scenes):4.0%}")
    return kept, torch.stack(pixels) if pixels else torch.zeros(0, 3, side, side, dtype=torch.uint8)


def _plain_scene(random: Random) -> Scene:
    return several(random.randint(1, 4), random.choice(COLOURS), random.choice(SHAPES))
