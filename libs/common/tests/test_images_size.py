"""An upload and its mask get a size that the model takes, by the mode that was asked for."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from atrium_common.errors import InvalidArgument
from atrium_common.images import (
    Pixels,
    ResizeMode,
    Size,
    SizeBounds,
    resize_mask,
    resize_picture,
    target_size,
)
from atrium_common.testing.pictures import gradient

SDXL = SizeBounds(native_pixels=1024 * 1024, min_side=512, max_side=2048, max_pixels=2_097_152)
TOY = SizeBounds(native_pixels=128 * 128, min_side=64, max_side=256, max_pixels=65_536)
SCALING = [mode for mode in ResizeMode if mode is not ResizeMode.NONE]
UNASKED = Size(0, 0)
EASY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

sides = st.integers(1, 12_000)
sizes = st.builds(Size, sides, sides)


@st.composite
def ranges(draw: st.DrawFn) -> SizeBounds:
    """Bounds of some model: a native square within its range."""
    least = 8 * draw(st.integers(2, 64))
    native = least + 8 * draw(st.integers(0, 64))
    most = native + 8 * draw(st.integers(0, 128))
    pixels = draw(st.integers(native**2, most**2))
    return SizeBounds(native_pixels=native**2, min_side=least, max_side=most, max_pixels=pixels)


def decided(
    source: Size, mode: ResizeMode, bounds: SizeBounds, asked: Size = UNASKED
) -> Size | InvalidArgument:
    try:
        return target_size(source, mode=mode, bounds=bounds, width=asked.width, height=asked.height)
    except InvalidArgument as refusal:
        return refusal


def holds(size: Size, bounds: SizeBounds) -> bool:
    inside = all(bounds.min_side <= side <= bounds.max_side and side % 8 == 0 for side in size)
    return inside and size.pixels <= bounds.max_pixels


def keeps_aspect(size: Size, source: Size) -> bool:
    """Within what rounding both sides to multiples of 8 can do."""
    skew = abs(size.width * source.height - size.height * source.width)
    return skew <= 12 * (source.width + source.height)


@EASY
@given(sizes, ranges(), st.sampled_from(SCALING))
def test_an_upload_gets_a_size_of_its_aspect_within_the_models_range(
    source: Size, bounds: SizeBounds, mode: ResizeMode
) -> None:
    size = decided(source, mode, bounds)
    if isinstance(size, InvalidArgument):
        # Only what is too long and narrow for the range.
        steepest = min(bounds.most, bounds.max_pixels / bounds.least) / bounds.least
        assert max(source) / min(source) > steepest * 0.75
        assert size.field == "image"
        return
    assert holds(size, bounds)
    assert keeps_aspect(size, source)


@EASY
@given(sizes, st.sampled_from(SCALING), st.integers(0, 40), st.integers(0, 40))
def test_an_asked_size_is_given_or_refused(
    source: Size, mode: ResizeMode, width: int, height: int
) -> None:
    assume(width or height)
    asked = Size(width * 8, height * 8)
    size = decided(source, mode, TOY, asked)
    if isinstance(size, InvalidArgument):
        assert size.field in {"width", "height", "image"}
        return
    assert holds(size, TOY)
    if mode is not ResizeMode.FIT and width and height:
        assert size == asked
    elif width and height:
        assert size.width <= asked.width
        assert size.height <= asked.height
        assert size.width == asked.width or size.height == asked.height
    else:
        assert keeps_aspect(size, source)
        assert size.width == asked.width or not width
        assert size.height == asked.height or not height


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (Size(1024, 1024), Size(1024, 1024)),
        (Size(64, 64), Size(1024, 1024)),
        (Size(4000, 3000), Size(1184, 888)),
        (Size(3000, 4000), Size(888, 1184)),
        (Size(1920, 1080), Size(1368, 768)),
    ],
)
def test_photos_get_the_models_pixel_count(source: Size, expected: Size) -> None:
    assert target_size(source, mode=ResizeMode.FIT, bounds=SDXL) == expected


@pytest.mark.parametrize(
    ("source", "width", "height", "field"),
    [
        (Size(100, 100), 100, 0, "config.width"),  # no multiple of 8
        (Size(100, 100), 0, 264, "config.height"),  # over the range
        (Size(100, 100), 56, 56, "config.width"),
        (Size(100, 100), -8, 0, "config.width"),
        (Size(400, 100), 64, 0, "config.width"),  # the other side would be 16
        (Size(5000, 10), 0, 0, "picture"),
        (Size(5000, 10), 128, 128, "picture"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    source: Size, width: int, height: int, field: str
) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        target_size(
            source,
            mode=ResizeMode.FIT,
            bounds=TOY,
            width=width,
            height=height,
            field="picture",
            prefix="config.",
        )
    assert refusal.value.field == field


def test_too_many_pixels_are_refused_though_both_sides_hold() -> None:
    with pytest.raises(InvalidArgument, match="2097152"):
        target_size(Size(9, 9), mode=ResizeMode.STRETCH, bounds=SDXL, width=2048, height=2048)


def test_without_resizing_only_what_fits_is_taken() -> None:
    none = ResizeMode.NONE
    assert target_size(Size(72, 256), mode=none, bounds=TOY) == Size(72, 256)
    for size in (Size(73, 128), Size(128, 40), Size(128, 264)):
        with pytest.raises(InvalidArgument) as refusal:
            target_size(size, mode=none, bounds=TOY)
        assert refusal.value.field == "image"
    with pytest.raises(InvalidArgument) as refusal:
        target_size(Size(64, 64), mode=none, bounds=TOY, height=64)
    assert refusal.value.field == "height"


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    picture = gradient(64, 64)
    mask = np.zeros((64, 64), np.float32)
    for mode in ResizeMode:
        assert resize_picture(picture, Size(64, 64), mode) is picture
        assert resize_mask(mask, Size(64, 64), mode) is mask


@EASY
@given(
    st.builds(Size, st.integers(1, 60), st.integers(1, 60)),
    st.builds(Size, st.integers(1, 8), st.integers(1, 8)),
    st.sampled_from(SCALING),
)
def test_pictures_and_masks_get_the_size(source: Size, eighths: Size, mode: ResizeMode) -> None:
    size = Size(eighths.width * 8, eighths.height * 8)
    picture = resize_picture(np.full((source.height, source.width, 3), 77, np.uint8), size, mode)
    assert picture.shape == (size.height, size.width, 3)
    assert (picture == 77).all()
    for level in (0.0, 1.0):
        whole = np.full((source.height, source.width), level, np.float32)
        mask = resize_mask(whole, size, mode)
        assert mask.shape == (size.height, size.width)
        assert mask.dtype == np.float32
        assert (mask == level).all()


def halves() -> Pixels:
    """Thirds, side by side: black, grey, white; 60 x 20."""
    picture = np.zeros((20, 60, 3), np.uint8)
    picture[:, 20:40] = 128
    picture[:, 40:] = 255
    return picture


def test_cropping_keeps_the_middle() -> None:
    cropped = resize_picture(halves(), Size(40, 40), ResizeMode.CROP)
    assert np.abs(cropped.astype(int)[:, 4:-4] - 128).max() <= 1


def test_padding_repeats_the_border_and_cuts_nothing() -> None:
    padded = resize_picture(halves().transpose(1, 0, 2), Size(120, 120), ResizeMode.PAD)
    assert padded[:30].max() == 0
    assert padded[-30:].min() == 255
    assert (padded == padded[:, :1]).all()


def test_stretching_keeps_all_of_it() -> None:
    stretched = resize_picture(halves(), Size(24, 48), ResizeMode.STRETCH)
    assert stretched[0, 0, 0] < 5
    assert stretched[0, -1, 0] > 250
    assert abs(int(stretched[24, 12, 0]) - 128) <= 2


@pytest.mark.parametrize("mode", SCALING)
def test_a_mask_lies_where_its_picture_does(mode: ResizeMode) -> None:
    picture = np.zeros((50, 90, 3), np.uint8)
    picture[10:30, 20:60] = 255
    mask = (picture[..., 0] / 255).astype(np.float32)
    size = Size(64, 128)
    drawn = resize_picture(picture, size, mode)[..., 0] > 127
    assert ((resize_mask(mask, size, mode) > 0.5) ^ drawn).mean() < 0.02
