"""The world that the starter models know: flat shapes in eight colours, described and rendered.

The trainer in `models/starter` learns from it and every test of drawn pictures asks for it;
`judge.py` reads its pictures back.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random
from types import MappingProxyType

from PIL import Image, ImageDraw

Rgb = tuple[int, int, int]

PALETTE: Mapping[str, Rgb] = MappingProxyType(
    {
        "red": (220, 40, 40),
        "green": (40, 160, 60),
        "blue": (40, 80, 220),
        "yellow": (245, 215, 50),
        "orange": (245, 135, 25),
        "purple": (140, 60, 180),
        "black": (25, 25, 25),
        "white": (245, 245, 245),
    }
)
COLOURS = tuple(PALETTE)
SHAPES = ("circle", "square", "triangle", "star")
GREY = "grey"
GREY_RGB: Rgb = (150, 150, 150)
"""Behind white figures, where no background is asked for."""
SIDE = 128
"""Pixels; the size that the models are trained on."""
COUNTS = ("one", "two", "three", "four")

Point = tuple[float, float]

_PLACES: Mapping[int, Sequence[Point]] = MappingProxyType(
    {
        1: ((0.5, 0.5),),
        2: ((0.28, 0.5), (0.72, 0.5)),
        3: ((0.5, 0.27), (0.27, 0.72), (0.73, 0.72)),
        4: ((0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)),
    }
)
_RADII = {1: 0.27, 2: 0.18, 3: 0.17, 4: 0.16}
_SHIFT_OF_MANY = 0.03
_COLOUR_JITTER = 8
_FINER = 2
"""Pictures are drawn this much larger, then averaged: smooth edges."""


def seeded(seed: int | str) -> Random:
    """Chance that repeats: what `render` and `random_scene` draw from."""
    return Random(seed)  # noqa: S311 - pictures, no secrets


class Size(StrEnum):
    """How large a single figure is asked to be; its radius and its play in `_SIZES`."""

    SMALL = "small"
    MIDDLE = ""
    LARGE = "large"


_SIZES = {Size.SMALL: (0.13, 0.2), Size.MIDDLE: (_RADII[1], 0.06), Size.LARGE: (0.4, 0.03)}
"""Radius and how far the centre may lie from the picture's, both as shares of its side."""


@dataclass(frozen=True, slots=True, order=True)
class Figure:
    """One shape in one colour, e.g. ``Figure("red", "circle")``."""

    colour: str
    shape: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a picture shows.

    Attributes:
        figures: One to four. Two different ones stand side by side, in this order; all others
            are equal.
        size: Of a single figure.
        background: Its colour, or ``None`` where none is asked for: white, or grey behind
            white figures.
    """

    figures: tuple[Figure, ...]
    size: Size = Size.MIDDLE
    background: str | None = None

    @property
    def background_seen(self) -> str:
        """The colour behind the figures, asked for or not."""
        if self.background is not None:
            return self.background
        return GREY if any(figure.colour == "white" for figure in self.figures) else "white"


def several(count: int, colour: str, shape: str) -> Scene:
    """The scene of `count` equal figures, 1 to 4, on the usual background."""
    return Scene(figures=(Figure(colour, shape),) * count)


def random_scene(random: Random) -> Scene:
    """Draws a scene: one figure in half of all cases, a background colour in 45%."""
    count = random.choices((1, 2, 3, 4), (0.5, 0.17, 0.17, 0.16))[0]
    figure = Figure(random.choice(COLOURS), random.choice(SHAPES))
    figures = (figure,) * count
    if count == 2 and random.random() < 0.5:
        figures = (figure, Figure(random.choice(COLOURS), random.choice(SHAPES)))
    size = Size.MIDDLE
    if count == 1 and random.random() < 0.4:
        size = random.choice((Size.SMALL, Size.LARGE))
    background = None
    if random.random() < 0.45:
        used = {each.colour for each in figures}
        background = random.choice([colour for colour in COLOURS if colour not in used])
    return Scene(figures=figures, size=size, background=background)


def recoloured(scene: Scene, random: Random) -> Scene:
    """The same shapes in the same places, each in another colour."""
    colours = {
        colour: random.choice(
            [other for other in COLOURS if other not in (colour, scene.background_seen)]
        )
        for colour in sorted({figure.colour for figure in scene.figures})
    }
    figures = tuple(Figure(colours[figure.colour], figure.shape) for figure in scene.figures)
    return replace(scene, figures=figures)


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def caption(scene: Scene) -> str:
    """The plain words for a scene, e.g. ``"a red circle on a blue background"``."""
    first, last = scene.figures[0], scene.figures[-1]
    if first != last:
        words = " and ".join(
            _with_article(f"{figure.colour} {figure.shape}") for figure in scene.figures
        )
    elif len(scene.figures) == 1:
        words = _with_article(f"{scene.size} {first.colour} {first.shape}".lstrip())
    else:
        words = f"{COUNTS[len(scene.figures) - 1]} {first.colour} {first.shape}s"
    if scene.background is not None:
        words += f" on {_with_article(scene.background)} background"
    return words


def varied_caption(scene: Scene, random: Random) -> str:
    """Words for a scene as people vary them: openings, "one" for "a", a capital and a full stop."""
    words = caption(scene)
    if len(scene.figures) == 1:
        _, _, bare = words.partition(" ")
        words = random.choices((words, f"one {bare}", bare), (0.76, 0.14, 0.1))[0]
    openings = ("", "a picture of ", "a photo of ", "a drawing of ")
    words = random.choices(openings, (0.8, 0.08, 0.08, 0.04))[0] + words
    return f"{words.capitalize()}." if random.random() < 0.06 else words


def outline(shape: str, centre: Point, radius: float) -> list[Point]:
    """The corners of a shape that has some: any but the circle. In the units of its arguments."""
    x, y = centre
    match shape:
        case "square":
            half = 0.88 * radius
            signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
            return [(x + half * right, y + half * down) for right, down in signs]
        case "triangle":
            low = y + 0.8 * radius
            return [(x, y - radius), (x + radius, low), (x - radius, low)]
        case "star":
            reaches = [radius if corner % 2 == 0 else 0.42 * radius for corner in range(10)]
            angles = [math.pi * corner / 5 for corner in range(10)]
            return [
                (x + reach * math.sin(angle), y - reach * math.cos(angle))
                for reach, angle in zip(reaches, angles, strict=True)
            ]
        case _:
            raise ValueError(f"a {shape} has no corners")


def draw_figure(
    canvas: Image.Image, shape: str, colour: Rgb | int, centre: Point, radius: float
) -> None:
    """Draws one shape; centre and radius are shares of the side, the colour fits the canvas."""
    pen, side = ImageDraw.Draw(canvas), canvas.width
    x, y, reach = centre[0] * side, centre[1] * side, radius * side
    if shape == "circle":
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)
    else:
        pen.polygon(outline(shape, (x, y), reach), fill=colour)


def render(scene: Scene, random: Random, *, side: int = SIDE) -> Image.Image:
    """Paints a scene with chance in its places, sizes and hues.

    Equal states of `random` give equal places for all scenes of as many figures and one size,
    so a scene and its `recoloured` twin can be rendered alike.

    Args:
        scene: What to paint.
        random: Where chance comes from.
        side: Of the square picture, in pixels.
    """

    def jittered(rgb: Rgb) -> Rgb:
        red, green, blue = (
            min(255, max(0, level + random.randint(-_COLOUR_JITTER, _COLOUR_JITTER)))
            for level in rgb
        )
        return red, green, blue

    count = len(scene.figures)
    radius, play = _SIZES[scene.size] if count == 1 else (_RADII[count], _SHIFT_OF_MANY)
    behind = GREY_RGB if scene.background_seen == GREY else PALETTE[scene.background_seen]
    canvas = Image.new("RGB", (side * _FINER, side * _FINER), jittered(behind))
    for figure, (x, y) in zip(scene.figures, _PLACES[count], strict=True):
        reach = radius * random.uniform(0.92, 1.08)
        centre = (x + random.uniform(-play, play), y + random.uniform(-play, play))
        draw_figure(canvas, figure.shape, jittered(PALETTE[figure.colour]), centre, reach)
    return canvas.resize((side, side), Image.Resampling.BOX)


def _plain_scenes() -> dict[str, Scene]:
    singles = [several(1, colour, shape) for colour in COLOURS for shape in SHAPES]
    groups = [
        several(2 + (hue + form) % 3, colour, shape)
        for hue, colour in enumerate(COLOURS[:-1])
        for form, shape in enumerate(SHAPES)
    ]
    return {caption(scene): scene for scene in (*singles, *groups)}


PLAIN_SCENES: Mapping[str, Scene] = MappingProxyType(_plain_scenes())
"""Sixty plain prompts and what they ask for: each colour and shape alone, and in groups of two
to four ("three green stars", "two blue squares")."""
