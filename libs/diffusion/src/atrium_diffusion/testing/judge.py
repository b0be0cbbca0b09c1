"""Tells from pixel statistics alone what a picture of shapes shows.

Tests and the starter model's evaluation judge drawn pictures with it; no model looks on.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from atrium_diffusion.domain import Pixels
from atrium_diffusion.testing.shapes import (
    COLOURS,
    GREY,
    GREY_RGB,
    PALETTE,
    SHAPES,
    SIDE,
    Figure,
    Scene,
    draw_figure,
)

Area = NDArray[np.bool_]
"""Which pixels: shape (height, width)."""

_NAMES = (*COLOURS, GREY)
_RGB = np.array([*PALETTE.values(), GREY_RGB], np.float32)
_FAR = 60.0
"""A pixel this far from the background, in RGB levels, belongs to a figure."""
_LEAST_AREA = 120
"""Pixels; anything smaller is a speck."""
_RIM = 3
"""Pixels at the edge of a figure, or of the picture, whose colours are mixed or untypical."""
_LEAST_CORE = 20
_LEAST_SHARE = 0.15
"""A colour with less of the figures' cores is a blemish, or a blend at their edges."""
_TEMPLATE_SIDE = 32
_BLUNT = 6.0
"""Pixels by which the blunt templates are blurred; their shapes are 102 pixels wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A figure as it was read.

    Attributes:
        figure: Its nearest colour and shape.
        fit: IoU with the ideal shape of its bounding box, sharp or with blunt corners.
        purity: Share of its core that is nearest to its colour.
        area: Pixels, of a picture of 128 by 128.
    """

    figure: Figure
    fit: float
    purity: float
    area: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a picture shows: its background's colour and its figures, from left to right."""

    background: str
    figures: tuple[Seen, ...]

    @property
    def largest(self) -> Figure | None:
        """The figure with the most pixels; ``None`` in an empty picture."""
        return max(self.figures, key=lambda seen: seen.area).figure if self.figures else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a picture meets a scene.

    Attributes:
        right: Everything but the size is as asked: background, number, each figure.
        background: Its colour is right.
        count: There are as many figures as asked for.
        colours: The figures' colours are right, if not their number.
        shapes: The same of their shapes.
        fit: Mean of `Seen.fit`; 0 in an empty picture.
    """

    right: bool
    background: bool
    count: bool
    colours: bool
    shapes: bool
    fit: float


def _levels(picture: Image.Image | Pixels) -> NDArray[np.float32]:
    """The picture at the judge's size, shape (128, 128, 3), 0 to 255."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image = image.convert("RGB")
    if image.size != (SIDE, SIDE):
        image = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(image, np.float32)


def _eroded(area: Area, times: int) -> Area:
    """Without its rim: a pixel stays if its four neighbours belong too; none lie outside."""
    for _ in range(times):
        wide = np.pad(area, 1)
        area = area & wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return area


def _dilated(area: Area) -> Area:
    """With a rim of one pixel."""
    wide = np.pad(area, 1)
    return area | wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]


def _parts(area: Area) -> list[Area]:
    """Its connected parts (by edges, not corners)."""
    wide = np.pad(area, 1)
    steps = (1, -1, wide.shape[1], -wide.shape[1])
    left = set(np.flatnonzero(wide).tolist())
    parts = []
    while left:
        found = [left.pop()]
        for place in found:  # grows while it is walked
            near = left.intersection([place + step for step in steps])
            left -= near
            found.extend(near)
        part = np.zeros(wide.size, np.bool_)
        part[found] = True
        parts.append(part.reshape(wide.shape)[1:-1, 1:-1])
    return parts


def _stretched(area: Area) -> Area:
    """What its bounding box holds, stretched to the templates' size."""
    rows, columns = np.flatnonzero(area.any(1)), np.flatnonzero(area.any(0))
    box = area[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    image = Image.fromarray(box.astype(np.uint8) * 255)
    side = (_TEMPLATE_SIDE, _TEMPLATE_SIDE)
    return np.asarray(image.resize(side, Image.Resampling.BOX)) > 127


@cache
def _templates() -> dict[str, tuple[Area, ...]]:
    """The ideal shapes, stretched: sharp, and with the blunt corners of a soft drawing."""
    templates = {}
    for shape in SHAPES:
        canvas = Image.new("L", (SIDE, SIDE))
        draw_figure(canvas, shape, 255, (0.5, 0.5), 0.4)
        blunt = canvas.filter(ImageFilter.GaussianBlur(_BLUNT))
        templates[shape] = tuple(_stretched(np.asarray(each) > 127) for each in (canvas, blunt))
    return templates


def iou(one: Area, other: Area) -> float:
    """Intersection over union, 0 to 1; two empty areas are equal."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


def _most_common(names: NDArray[np.intp]) -> int:
    return int(np.bincount(names.ravel(), minlength=len(_NAMES)).argmax())


def _nearest(levels: NDArray[np.float32]) -> NDArray[np.intp]:
    """The index of each pixel's nearest colour."""
    distances = (_RGB**2).sum(-1) - 2 * levels @ _RGB.T  # less what is the same for all
    nearest: NDArray[np.intp] = distances.argmin(-1)
    return nearest


def _figures(levels: NDArray[np.float32], nearest: NDArray[np.intp]) -> tuple[int, Area]:
    """The background's colour, and the pixels that are not of it.

    A soft edge ends where a pixel is as near to the background as to a figure's colour, so
    that the halos of close figures don't make one of them.
    """
    border = np.ones(nearest.shape, np.bool_)
    border[_RIM:-_RIM, _RIM:-_RIM] = False
    ground = _most_common(nearest[border])
    behind = ((levels - np.median(levels[nearest == ground], axis=0)) ** 2).sum(-1)
    far = behind > _FAR**2
    shares = np.bincount(nearest[_eroded(far, _RIM)], minlength=len(_NAMES))
    colours = _RGB[shares > _LEAST_SHARE * shares.sum()]
    if len(colours) == 0:
        return ground, far
    ahead = ((levels[:, :, None, :] - colours) ** 2).sum(-1).min(-1)
    return ground, far & (ahead < behind)


def _seen(part: Area, nearest: NDArray[np.intp]) -> Seen:
    core = _eroded(part, _RIM)
    if core.sum() < _LEAST_CORE:
        core = part
    colour = _most_common(nearest[core])
    stretched = _stretched(part)
    fits = {
        shape: max(iou(stretched, template) for template in templates)
        for shape, templates in _templates().items()
    }
    shape = max(fits, key=lambda each: fits[each])
    return Seen(
        figure=Figure(_NAMES[colour], shape),
        fit=fits[shape],
        purity=float((nearest[core] == colour).mean()),
        area=int(part.sum()),
    )


def read(picture: Image.Image | Pixels) -> Reading:
    """Reads a picture of any size back."""
    levels = _levels(picture)
    nearest = _nearest(levels)
    ground, figures = _figures(levels, nearest)
    parts = [part for part in _parts(_dilated(_eroded(figures, 1))) if part.sum() >= _LEAST_AREA]
    parts.sort(key=lambda part: float(np.nonzero(part)[1].mean()))
    return Reading(background=_NAMES[ground], figures=tuple(_seen(part, nearest) for part in parts))


def judge(picture: Image.Image | Pixels, scene: Scene) -> Verdict:
    """Judges a picture of any size by what a scene asks for."""
    reading = read(picture)
    seen, asked = [each.figure for each in reading.figures], scene.figures
    background = reading.background == scene.background_seen
    count = len(seen) == len(asked)

    def agree(given: list[str], wanted: list[str]) -> bool:
        return Counter(given) == Counter(wanted) if count else set(given) == set(wanted)

    return Verdict(
        right=background and count and sorted(seen) == sorted(asked),
        background=background,
        count=count,
        colours=agree([each.colour for each in seen], [each.colour for each in asked]),
        shapes=agree([each.shape for each in seen], [each.shape for each in asked]),
        fit=float(np.mean([each.fit for each in reading.figures])) if seen else 0.0,
    )


def silhouette(picture: Image.Image | Pixels) -> Area:
    """What stands out from the background, whatever its colour; shape (128, 128)."""
    levels = _levels(picture)
    return _figures(levels, _nearest(levels))[1]


def silhouette_iou(one: Image.Image | Pixels, other: Image.Image | Pixels) -> float:
    """How much of two pictures' silhouettes coincide: IoU, 0 to 1."""
    return iou(silhouette(one), silhouette(other))
