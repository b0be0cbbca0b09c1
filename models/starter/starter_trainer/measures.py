"""The figures of a picture model: what share of its pictures the pixel judge accepts."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from atrium_diffusion.testing.judge import judge, read, silhouette_iou
from atrium_diffusion.testing.shapes import (
    COLOURS,
    PLAIN_SCENES,
    SHAPES,
    Scene,
    caption,
    random_scene,
    render,
    seeded,
    several,
)
from starter_trainer.drawing import Drawer, Order

RECOLOUR_STRENGTH, RESHAPE_STRENGTH = 0.3, 0.7
_WHITELESS = COLOURS[:-1]
"""Edits keep to white backgrounds."""
_FIRST_SEED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One row of the table.

    Attributes:
        name: What was asked for.
        pictures: How many were drawn.
        figures: What was found, by name: shares and IoU, 0 to 1.
        sheet: The pictures; for edits every source before its edit.
    """

    name: str
    pictures: int
    figures: dict[str, float]
    sheet: Sequence[Image.Image]

    @property
    def line(self) -> str:
        """The row as text."""
        cells = "  ".join(f"{name} {value:5.1%}" for name, value in self.figures.items())
        return f"{self.name:28} n={self.pictures:<4} {cells}"


def mean(values: Iterable[float]) -> float:
    """Of a row's pictures."""
    return float(np.mean(list(values)))


def _texts(name: str, drawer: Drawer, scenes: Sequence[Scene]) -> Result:
    orders = [
        Order(prompt=caption(scene), seed=_FIRST_SEED + place) for place, scene in enumerate(scenes)
    ]
    pictures = drawer.draw(orders)
    verdicts = [judge(picture, scene) for picture, scene in zip(pictures, scenes, strict=True)]
    figures = {
        "right": mean(verdict.right for verdict in verdicts),
        "colours": mean(verdict.colours for verdict in verdicts),
        "count": mean(verdict.count for verdict in verdicts),
        "shapes": mean(verdict.shapes for verdict in verdicts),
        "background": mean(verdict.background for verdict in verdicts),
        "fit": mean(verdict.fit for verdict in verdicts),
    }
    return Result(name=name, pictures=len(pictures), figures=figures, sheet=pictures)


def plain_prompts(drawer: Drawer) -> Result:
    """The sixty plain prompts."""
    return _texts("plain prompts", drawer, list(PLAIN_SCENES.values()))


def random_prompts(drawer: Drawer, *, pictures: int) -> Result:
    """All that the model knows: sizes, backgrounds, pairs, groups."""
    random = seeded("evaluation")
    return _texts("random prompts", drawer, [random_scene(random) for _ in range(pictures)])


def _edits(
    name: str, drawer: Drawer, *, pictures: int, strength: float, change: Callable[[Scene], Scene]
) -> Result:
    random = seeded(name)
    scenes = [several(1, random.choice(_WHITELESS), random.choice(SHAPES)) for _ in range(pictures)]
    asked = [change(scene) for scene in scenes]
    sources = [render(scene, random) for scene in scenes]
    orders = [
        Order(prompt=caption(scene), seed=place, source=source, strength=strength)
        for place, (scene, source) in enumerate(zip(asked, sources, strict=True))
    ]
    edited = drawer.draw(orders)
    seen = [read(picture).largest for picture in edited]
    wanted = [scene.figures[0] for scene in asked]
    pairs = list(zip(seen, wanted, strict=True))
    figures = {
        "colour": mean(one is not None and one.colour == two.colour for one, two in pairs),
        "shape": mean(one is not None and one.shape == two.shape for one, two in pairs),
        "IoU": mean(map(silhouette_iou, sources, edited)),
    }
    sheet = [picture for pair in zip(sources, edited, strict=True) for picture in pair]
    return Result(name=name, pictures=pictures, figures=figures, sheet=sheet)


def recolouring(drawer: Drawer, *, pictures: int, strength: float = RECOLOUR_STRENGTH) -> Result:
    """Another colour for a single figure; its shape is to stay, and its silhouette."""
    random = seeded("colours")

    def change(scene: Scene) -> Scene:
        figure = scene.figures[0]
        colour = random.choice([other for other in _WHITELESS if other != figure.colour])
        return replace(scene, figures=(replace(figure, colour=colour),))

    name = f"recolour, strength {strength}"
    return _edits(name, drawer, pictures=pictures, strength=strength, change=change)


def reshaping(drawer: Drawer, *, pictures: int, strength: float = RESHAPE_STRENGTH) -> Result:
    """Another shape for a single figure; its colour is to stay."""
    random = seeded("shapes")

    def change(scene: Scene) -> Scene:
        figure = scene.figures[0]
        shape = random.choice([other for other in SHAPES if other != figure.shape])
        return replace(scene, figures=(replace(figure, shape=shape),))

    name = f"reshape, strength {strength}"
    return _edits(name, drawer, pictures=pictures, strength=strength, change=change)


def sheet(pictures: Sequence[Image.Image], *, columns: int = 8) -> Image.Image:
    """The pictures on one, row by row."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * width, rows * height), "white")
    for place, picture in enumerate(pictures):
        page.paste(picture, (place % columns * width, place // columns * height))
    return page
