"""What was drawn becomes a file of the format and quality that were asked for."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from atrium_common.images import ImageLimits, encode, encode_within, read_picture
from atrium_common.testing.pictures import gradient


@pytest.mark.parametrize(("format", "quality"), [("png", None), ("webp", 100)])
def test_lossless_files_bring_back_every_pixel(format: str, quality: int | None) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 24, 3), dtype=np.uint8)
    data = encode(noise, format, quality=quality)
    picture = read_picture(data, limits=ImageLimits(), field="image")
    assert picture.format.lower() == format
    assert np.array_equal(picture.pixels, noise)


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_less_quality_is_a_smaller_file_of_the_same_picture(format: str) -> None:
    picture = gradient(128, 96)
    sizes = []
    for quality in (1, 50, 90, 99):
        data = encode(picture, format, quality=quality)
        back = read_picture(data, limits=ImageLimits(), field="image")
        assert back.format.lower() == format
        assert np.abs(back.pixels.astype(int) - picture).mean() < 40
        sizes.append(len(data))
    assert sizes == sorted(sizes)
    assert len(encode(picture, format)) == sizes[2]


def test_a_png_carries_text() -> None:
    told = {"prompt": "ein schöner Kreis \U0001f7e2"}
    data = encode(gradient(), "png", text={"atrium": json.dumps(told)})
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert json.loads(image.info["atrium"]) == told


def test_the_same_pixels_give_the_same_bytes() -> None:
    for format in ("png", "jpeg", "webp"):
        assert encode(gradient(), format) == encode(gradient().copy(), format)


@pytest.mark.parametrize(
    ("format", "options"),
    [("gif", {}), ("png", {"quality": 90}), ("jpeg", {"text": {"atrium": "{}"}})],
)
def test_what_a_format_does_not_have_is_an_error(format: str, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=format.upper() if format != "jpeg" else "PNG"):
        encode(gradient(), format, **options)  # type: ignore[arg-type] # any of them


def test_a_preview_keeps_its_bound_whatever_it_shows() -> None:
    noise = np.random.default_rng(2).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    assert len(encode_within(noise, max_bytes=65_536)) <= 65_536
    small = encode_within(gradient(), max_bytes=65_536)
    assert small == encode(gradient(), "jpeg", quality=80)
    with pytest.raises(ValueError, match="fit"):
        encode_within(noise, max_bytes=100)
