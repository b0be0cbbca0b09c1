"""BMP, TIFF and the first frame of a GIF are decoded where they are asked for, not elsewhere."""

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from atrium_common.errors import MediaError
from atrium_common.images import (
    EVERY,
    ImageLimits,
    Picture,
    count_tiff_pages,
    read_picture,
)
from atrium_common.testing.pictures import exif, gradient, refused, saved

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

UPRIGHT = gradient(48, 32)
OTHER = np.ascontiguousarray(UPRIGHT[::-1])
ALLOWED_NOW = {"gif", "gif-animated", "bmp", "tiff"}


def read(data: bytes, *, page: int = 1, limits: ImageLimits | None = None) -> Picture:
    return read_picture(
        data, limits=limits or ImageLimits(), field="chunk", formats=EVERY, page=page
    )


def pages(*pictures: Image.Image, **options: object) -> bytes:
    return saved(pictures[0], "TIFF", save_all=True, append_images=pictures[1:], **options)


@pytest.mark.parametrize("name", ["gif", "bmp", "tiff"])
def test_they_are_taken_only_where_they_are_asked_for(name: str) -> None:
    data = refused()[name]
    assert read(data).format == name.upper()
    with pytest.raises(MediaError, match=name.upper()):
        read_picture(data, limits=ImageLimits(), field="chunk")


@pytest.mark.parametrize("name", sorted(set(refused()) - ALLOWED_NOW))
def test_what_is_refused_otherwise_is_refused_then_too(name: str) -> None:
    with pytest.raises(MediaError) as refusal:
        read(refused()[name])
    assert refusal.value.field == "chunk"


@pytest.mark.parametrize(
    "data",
    [
        saved(UPRIGHT, "BMP"),
        saved(UPRIGHT, "TIFF"),
        saved(UPRIGHT, "TIFF", compression="tiff_lzw"),
        saved(UPRIGHT, "TIFF", compression="tiff_adobe_deflate"),
        saved(UPRIGHT, "TIFF", compression="packbits"),
        saved(UPRIGHT, "TIFF", big_tiff=False, tiffinfo={317: 2}, compression="tiff_lzw"),
    ],
)
def test_pixels_come_back_as_they_were(data: bytes) -> None:
    assert np.array_equal(read(data).pixels, UPRIGHT)


@pytest.mark.parametrize("compression", ["group3", "group4"])
def test_a_fax_comes_back_as_it_was(compression: str) -> None:
    page = Image.fromarray(UPRIGHT).convert("1")
    picture = read(saved(page, "TIFF", compression=compression))
    assert np.array_equal(picture.pixels[..., 0], np.array(page.convert("L")))


def test_of_a_gif_the_first_frame_is_taken() -> None:
    first, second = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    data = saved(first, "GIF", save_all=True, append_images=[second])
    assert read(data).pixels[8, 8].tolist() == [255, 0, 0]


def test_of_a_tiff_any_page_is_taken() -> None:
    data = pages(Image.fromarray(UPRIGHT), Image.fromarray(OTHER))
    assert count_tiff_pages(data, most=9, field="chunk") == 2
    assert np.array_equal(read(data, page=1).pixels, UPRIGHT)
    assert np.array_equal(read(data, page=2).pixels, OTHER)
    with pytest.raises(MediaError, match="2 pages"):
        read(data, page=3)


def test_pages_are_counted_no_further_than_they_are_taken() -> None:
    data = pages(*[Image.new("L", (8, 8))] * 40)
    assert count_tiff_pages(data, most=40, field="chunk") == 40
    assert count_tiff_pages(data, most=9, field="chunk") == 10


def test_previews_are_no_pages() -> None:
    data = bytearray(pages(Image.fromarray(UPRIGHT), Image.fromarray(OTHER), tiffinfo={254: 0}))
    kinds = [place for place in range(len(data)) if data[place : place + 4] == b"\xfe\0\4\0"]
    assert len(kinds) == 2
    data[kinds[0] + 8 : kinds[0] + 12] = struct.pack("<I", 1)
    assert count_tiff_pages(bytes(data), most=9, field="chunk") == 1
    assert np.array_equal(read(bytes(data)).pixels, OTHER)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_upright_once(orientation: int) -> None:
    jpeg = read(saved(UPRIGHT, "JPEG", exif=exif(orientation)))
    tiff = read(saved(UPRIGHT, "TIFF", tiffinfo={274: orientation}))
    assert tiff.pixels.shape == jpeg.pixels.shape
    assert np.abs(tiff.pixels.astype(int) - jpeg.pixels).mean() < 12


def test_sixteen_bits_become_eight() -> None:
    levels = np.linspace(0, 65_535, 256, dtype=np.uint16).reshape(16, 16)
    picture = read(saved(Image.fromarray(levels), "TIFF"))
    assert np.array_equal(picture.pixels[..., 0].ravel(), np.arange(256))


def test_damage_is_nothing_to_write_a_thousand_lines_about(
    capfd: pytest.CaptureFixture[str],
) -> None:
    noise = np.random.default_rng(0).random((300, 400)) < 0.5
    data = bytearray(saved(Image.fromarray(noise), "TIFF", compression="group3"))
    for place in range(200, len(data) - 400, 97):
        data[place] ^= 0x5A
    read(bytes(data))  # a fax is taken with what is left of it
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


SEEDS = [
    saved(UPRIGHT, "BMP"),
    saved(Image.fromarray(UPRIGHT).quantize(16), "BMP"),
    saved(Image.fromarray(UPRIGHT).quantize(16), "GIF"),
    *(saved(UPRIGHT, "TIFF", compression=name) for name in (None, "tiff_lzw", "jpeg")),
    saved(Image.fromarray(UPRIGHT).convert("1"), "TIFF", compression="group4"),
]


@given(st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_no_damage_is_anything_but_a_picture_or_a_refusal(data: st.DataObject) -> None:
    file = bytearray(data.draw(st.sampled_from(SEEDS)))
    ends = st.integers(0, 63) | st.integers(len(file) - 300, len(file) - 1)
    for position in data.draw(st.lists(ends, min_size=1, max_size=6)):
        file[position] = data.draw(st.integers(0, 255))
    try:
        picture = read(bytes(file), limits=ImageLimits(max_pixels=10_000_000))
    except MediaError:
        return
    assert picture.pixels.shape == (picture.size.height, picture.size.width, 3)


def test_a_page_is_bounded_by_itself() -> None:
    data = pages(Image.new("L", (10, 10)), Image.new("L", (100, 100)))
    limits = ImageLimits(max_pixels=5_000)
    assert read(data, limits=limits).size == (10, 10)
    with pytest.raises(MediaError, match="too large"):
        read(data, page=2, limits=limits)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "TIFF"])
@pytest.mark.parametrize(
    ("stated", "believed"),
    [((300, 300), 300), ((72, 72), 72), ((20, 20), None), ((9600, 9600), None), ((204, 98), None)],
)
def test_a_sane_resolution_is_told(
    format: str, stated: tuple[int, int], believed: int | None
) -> None:
    assert read(saved(UPRIGHT, format, dpi=stated)).resolution == believed
