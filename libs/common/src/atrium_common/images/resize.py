"""Which size an upload is edited at, and giving it and its mask that size.

Deciding is pure arithmetic; applying is Pillow's. The picture services call both.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image

from atrium_common.errors import InvalidArgument
from atrium_common.images.pixels import Mask, Pixels, Size, size_of

MULTIPLE = 8
"""Sides are multiples of it: a latent stands for 8 x 8 pixels."""


class ResizeMode(StrEnum):
    """How an upload gets the size that is denoised; the values are what REST takes."""

    FIT = "fit"
    """Scale to the model's pixel count, or into the asked size; keep the aspect."""
    CROP = "crop"
    """Scale and cut the edges, so that the asked size is filled."""
    PAD = "pad"
    """Scale and repeat the border, so that nothing is cut."""
    STRETCH = "stretch"
    """Scale to the asked size whatever the aspect."""
    NONE = "none"
    """Take it as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeBounds:
    """What sizes a model takes.

    Attributes:
        native_pixels: Width times height that it was trained on.
        min_side: Least pixels of a side.
        max_side: Most pixels of a side.
        max_pixels: Most pixels in all.
    """

    native_pixels: int
    min_side: int
    max_side: int
    max_pixels: int

    @property
    def least(self) -> int:
        """Least side that is a multiple of 8."""
        return math.ceil(self.min_side / MULTIPLE) * MULTIPLE

    @property
    def most(self) -> int:
        """Greatest side that is a multiple of 8."""
        return self.max_side // MULTIPLE * MULTIPLE

    def check_side(self, side: int, field: str) -> None:
        """Raises `InvalidArgument` for a side that the model does not take."""
        if side % MULTIPLE or not self.min_side <= side <= self.max_side:
            raise InvalidArgument(
                f"{side} pixels: a side is a multiple of {MULTIPLE} from {self.least} "
                f"to {self.most}.",
                field=field,
            )

    def check(self, size: Size, *, fields: tuple[str, str]) -> None:
        """Refuses a size that the model does not take.

        Args:
            size: Width and height.
            fields: Names of the two in refusals.

        Raises:
            InvalidArgument: A side is no multiple of 8 or out of its range, or the two
                make too many pixels.
        """
        for side, field in zip(size, fields, strict=True):
            self.check_side(side, field)
        if size.pixels > self.max_pixels:
            raise InvalidArgument(
                f"{size} pixels: at most {self.max_pixels} in all.", field=fields[0]
            )


def target_size(
    source: Size,
    *,
    mode: ResizeMode,
    bounds: SizeBounds,
    width: int = 0,
    height: int = 0,
    field: str = "image",
    prefix: str = "",
) -> Size:
    """Decides the size at which a picture is denoised.

    A side that is not asked for follows from the other one and the picture's aspect; if
    none is asked for, the picture gets about the model's pixel count. FIT takes an asked
    width and height for a box that the result fills on one side.

    Args:
        source: Size of the picture, oriented.
        mode: How it gets its size.
        bounds: What the model takes.
        width: Asked for, or 0.
        height: Asked for, or 0.
        field: Names the picture in refusals.
        prefix: Stands before ``width`` and ``height`` in refusals, e.g. ``"config."``.

    Returns:
        Sides that are multiples of 8 and within `bounds`.

    Raises:
        InvalidArgument: What is asked for is out of bounds, or the picture is too long
            and narrow for the model to keep its aspect.
    """
    names = (f"{prefix}width", f"{prefix}height")
    if mode is ResizeMode.NONE:
        for side, name in zip((width, height), names, strict=True):
            if side:
                raise InvalidArgument("A size has no use without resizing.", field=name)
        bounds.check(source, fields=(field, field))
        return source
    if not width and not height:
        return _near_native(source, bounds, field)
    for side, name in zip((width, height), names, strict=True):
        if side:
            bounds.check_side(side, name)
    if not (width and height):
        return _following(source, bounds, width, height, names[0] if width else names[1])
    asked = Size(width, height)
    bounds.check(asked, fields=names)
    if mode is not ResizeMode.FIT:
        return asked
    fitted = _scaled(source, min(width / source.width, height / source.height))
    if min(fitted) < bounds.least:
        raise _too_narrow(source, bounds, field)
    return fitted


def resize_picture(pixels: Pixels, size: Size, mode: ResizeMode) -> Pixels:
    """Gives a picture the size that was decided for it; one that has it comes back as it is."""
    if size_of(pixels) == size:
        return pixels
    layout = _Layout.of(size_of(pixels), size, mode)
    resized = Image.fromarray(pixels).resize(layout.inner, Image.Resampling.LANCZOS, box=layout.box)
    return np.pad(np.asarray(resized), (*layout.margins, (0, 0)), mode="edge")


def resize_mask(mask: Mask, size: Size, mode: ResizeMode) -> Mask:
    """Gives a mask the size of its picture: cut and padded as the picture is."""
    if size_of(mask) == size:
        return mask
    layout = _Layout.of(size_of(mask), size, mode)
    # Without overshoot, so that black stays 0 and white 1.
    resized = Image.fromarray(mask).resize(layout.inner, Image.Resampling.BILINEAR, layout.box)
    return np.pad(np.asarray(resized), layout.margins, mode="edge")


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which part of a picture goes where.

    Attributes:
        box: What is kept of it: left, top, right, bottom.
        inner: Size to which that is scaled.
        margins: Pixels added before and after it, per axis: rows, then columns.
    """

    box: tuple[float, float, float, float]
    inner: Size
    margins: tuple[tuple[int, int], tuple[int, int]]

    @classmethod
    def of(cls, source: Size, target: Size, mode: ResizeMode) -> "_Layout":
        """Lays `source` out on `target`."""
        across, down = target.width / source.width, target.height / source.height
        box, inner = (0.0, 0.0, float(source.width), float(source.height)), target
        if mode is ResizeMode.CROP:
            scale = max(across, down)
            kept_width = min(source.width, target.width / scale)
            kept_height = min(source.height, target.height / scale)
            left, top = (source.width - kept_width) / 2, (source.height - kept_height) / 2
            box = (left, top, left + kept_width, top + kept_height)
        elif mode is ResizeMode.PAD:
            scale = min(across, down)
            inner = Size(max(1, round(source.width * scale)), max(1, round(source.height * scale)))
        elif mode is ResizeMode.NONE:
            raise ValueError(f"{source} is not {target}")
        rows, columns = target.height - inner.height, target.width - inner.width
        margins = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2))
        return cls(box, inner, margins)


def _near_native(source: Size, bounds: SizeBounds, field: str) -> Size:
    """The size of the picture's aspect that is nearest to the model's pixel count."""
    least = max(bounds.least / source.width, bounds.least / source.height)
    most = min(
        bounds.most / source.width,
        bounds.most / source.height,
        math.sqrt(bounds.max_pixels / source.pixels),
    )
    native = math.sqrt(bounds.native_pixels / source.pixels)
    size = _scaled(source, min(max(native, least), most))
    while size.pixels > bounds.max_pixels:  # both sides were rounded up
        wide = size.width >= size.height
        size = Size(size.width - MULTIPLE * wide, size.height - MULTIPLE * (not wide))
    if min(size) < bounds.least:
        raise _too_narrow(source, bounds, field)
    return size


def _following(source: Size, bounds: SizeBounds, width: int, height: int, name: str) -> Size:
    """The size of the picture's aspect with one side given; `name` is that side's."""
    scale = width / source.width if width else height / source.height
    size = _scaled(source, scale)
    if not (bounds.least <= min(size) and max(size) <= bounds.most):
        raise InvalidArgument(
            f"With this side the picture becomes {size}; a side is from {bounds.least} to "
            f"{bounds.most}. Give the other one too.",
            field=name,
        )
    bounds.check(size, fields=(name, name))
    return size


def _scaled(source: Size, scale: float) -> Size:
    def side(length: int) -> int:
        return max(1, round(length * scale / MULTIPLE)) * MULTIPLE

    return Size(side(source.width), side(source.height))


def _too_narrow(source: Size, bounds: SizeBounds, field: str) -> InvalidArgument:
    return InvalidArgument(
        f"A picture of {source} can't keep its aspect with sides from {bounds.least} to "
        f"{bounds.most}: give width and height with the mode crop, pad or stretch.",
        field=field,
    )
