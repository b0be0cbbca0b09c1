"""A mask says what is drawn anew: by its brightness, or by its transparency if it has some."""

import numpy as np
import pytest
from PIL import Image

from atrium_common.errors import MediaError
from atrium_common.images import ImageLimits, Mask, Size, read_mask, soften
from atrium_common.testing.pictures import exif, refused, saved


def read(image: Image.Image | bytes, size: Size) -> Mask:
    data = image if isinstance(image, bytes) else saved(image)
    return read_mask(data, size=size, limits=ImageLimits(), field="mask_chunk")


def test_white_is_drawn_anew_and_black_is_kept_and_grey_blends() -> None:
    mask = read(Image.fromarray(np.array([[0, 51, 255]], np.uint8)), Size(3, 1))
    assert mask.dtype == np.float32
    assert mask.tolist() == [[0.0, np.float32(0.2), 1.0]]


def test_where_it_has_transparency_that_alone_decides() -> None:
    pixels = np.array([[[255, 255, 255, 255], [0, 0, 0, 0], [9, 9, 9, 204]]], np.uint8)
    mask = read(Image.fromarray(pixels), Size(3, 1))
    assert mask.tolist() == [[0.0, 1.0, np.float32(0.2)]]


def test_an_alpha_channel_that_is_opaque_decides_nothing() -> None:
    pixels = np.array([[[255, 255, 255, 255], [0, 0, 0, 255]]], np.uint8)
    assert read(Image.fromarray(pixels), Size(2, 1)).tolist() == [[1.0, 0.0]]


def test_a_palette_may_be_a_mask() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.putdata([0, 1])
    assert read(image, Size(2, 1)).tolist() == [[1.0, 0.0]]


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(MediaError, match="3 x 2") as refusal:
        read(Image.new("L", (3, 2)), Size(2, 3))
    assert refusal.value.reason == "INVALID_MEDIA"
    assert refusal.value.field == "mask_chunk"


def test_the_size_is_that_of_the_upright_mask() -> None:
    assert read(saved(Image.new("L", (3, 2)), exif=exif(6)), Size(2, 3)).shape == (3, 2)


@pytest.mark.parametrize("name", ["svg", "gif-animated", "png-huge", "png-cut", "empty"])
def test_what_is_refused_as_a_picture_is_refused_as_a_mask(name: str) -> None:
    with pytest.raises(MediaError) as refusal:
        read(refused()[name], Size(48, 32))
    assert refusal.value.field == "mask_chunk"


def test_a_softened_edge_changes_nothing_far_from_it() -> None:
    mask = np.zeros((64, 64), np.float32)
    mask[:, 32:] = 1.0
    assert soften(mask, 0) is mask
    soft = soften(mask, 4)
    assert soft.dtype == np.float32
    assert (soft[:, :12] == 0.0).all()
    assert (soft[:, -12:] == 1.0).all()
    row = soft[0]
    assert 0.3 < row[31] < 0.5 < row[32] < 0.7
    assert (np.diff(row) >= 0).all()
