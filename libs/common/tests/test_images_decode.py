"""Whatever is uploaded as a picture becomes upright sRGB pixels or a refusal by name."""

import io
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from atrium_common.errors import MediaError
from atrium_common.images import ImageLimits, Picture, Pixels, Size, read_picture
from atrium_common.images.jpeg import MAX_SCANS, count_scans
from atrium_common.testing.pictures import (
    animated,
    archive,
    claiming_png,
    exif,
    gradient,
    png_chunk,
    polyglots,
    raw_png,
    refused,
    saved,
    scan_bomb,
)

# Pillow warns of metadata that does not hold; services don't make errors of warnings.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

LIMITS = ImageLimits()
UPRIGHT = gradient(48, 32)
REFUSED = refused()
POLYGLOTS = polyglots()


def read(data: bytes | Path, limits: ImageLimits = LIMITS) -> Picture:
    return read_picture(data, limits=limits, field="image_chunk")


def difference(one: Pixels, other: Pixels) -> int:
    """Largest difference of two pictures, in grey levels."""
    return int(np.abs(one.astype(int) - other).max())


def is_like(one: Pixels, other: Pixels) -> bool:
    """Whether it is the same picture after a lossy encoder."""
    return one.shape == other.shape and float(np.abs(one.astype(int) - other).mean()) < 12


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_still_picture_of_a_sane_size_is_refused(name: str) -> None:
    with pytest.raises(MediaError) as refusal:
        read(REFUSED[name])
    assert refusal.value.reason == "INVALID_MEDIA"
    assert refusal.value.field == "image_chunk"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("svg", "SVG"),
        ("svg-declared", "SVG"),
        ("gif-animated", "GIF"),
        ("bmp", "BMP"),
        ("tiff", "TIFF"),
        ("zip-jpeg", "ZIP"),
        ("avif", "AVIF"),
        ("png-animated", "animated"),
        ("webp-animated", "animated"),
        ("png-cut", "PNG file is cut"),
        ("jpeg-cut", "JPEG file is cut"),
        ("png-wide", "too large"),
        ("jpeg-huge", "too large"),
        ("webp-huge", "too large"),
        ("webp-large", "too large"),
        ("jpeg-scans", "scans"),
    ],
)
def test_the_refusal_says_why(name: str, said: str) -> None:
    with pytest.raises(MediaError, match=said):
        read(REFUSED[name])


@pytest.mark.parametrize("name", ["png-huge", "jpeg-huge", "webp-huge", "webp-large"])
def test_a_bomb_is_refused_before_it_takes_memory(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(MediaError):
            read(REFUSED[name])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 1024**2


def test_the_limits_are_counted_exactly() -> None:
    data = saved(gradient(48, 32))
    assert read(data, ImageLimits(max_pixels=48 * 32, max_side=48, max_bytes=len(data)))
    for limits in (
        ImageLimits(max_pixels=48 * 32 - 1),
        ImageLimits(max_side=47),
        ImageLimits(max_bytes=len(data) - 1),
    ):
        with pytest.raises(MediaError):
            read(data, limits)


def test_a_file_over_its_bytes_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(LIMITS.max_bytes + 1)  # sparse
    with pytest.raises(MediaError, match="bytes"):
        read(path)


def test_a_path_is_read_as_its_bytes_are(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(saved(UPRIGHT))
    assert np.array_equal(read(path).pixels, UPRIGHT)


@pytest.mark.parametrize("name", POLYGLOTS)
def test_what_follows_or_hides_in_a_picture_goes_nowhere(name: str) -> None:
    picture = read(POLYGLOTS[name])
    assert picture.size == Size(48, 32)
    assert is_like(picture.pixels, UPRIGHT)
    assert archive()[:4] not in picture.pixels.tobytes()


def test_a_lossless_picture_comes_as_it_is() -> None:
    for data, name in ((saved(UPRIGHT), "PNG"), (saved(UPRIGHT, "WEBP", lossless=True), "WebP")):
        picture = read(data)
        assert np.array_equal(picture.pixels, UPRIGHT)
        assert picture.alpha is None
        assert picture.format == name
        assert picture.pixels.flags.c_contiguous


def test_one_frame_in_an_animation_format_is_a_picture() -> None:
    assert read(animated("WEBP", frames=1)).size == Size(16, 16)


def stored(upright: Pixels, orientation: int) -> Pixels:
    """Lays a picture down as EXIF says: which side of it row 0 is, and which column 0."""
    top = {1: "top", 2: "top", 3: "bottom", 4: "bottom", 5: "left", 6: "right", 7: "right"}
    side = {1: "left", 2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "bottom"}
    row, column = top.get(orientation, "left"), side.get(orientation, "bottom")
    for name in (row, column):
        if name == "bottom":
            upright = upright[::-1]
        if name == "right":
            upright = upright[:, ::-1]
    return upright.transpose(1, 0, 2) if row in ("left", "right") else upright


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
def test_a_turned_photo_is_upright(format: str, orientation: int) -> None:
    options: dict[str, object] = {"lossless": True} if format == "WEBP" else {}
    if format == "JPEG":
        options = {"quality": 100, "subsampling": 0}
    laid = np.ascontiguousarray(stored(UPRIGHT, orientation))
    picture = read(saved(laid, format, exif=exif(orientation), **options))
    assert picture.size == Size(48, 32)
    assert difference(picture.pixels, UPRIGHT) <= (8 if format == "JPEG" else 0)


def test_transparency_is_turned_with_its_picture() -> None:
    alpha = np.full((32, 48, 1), 255, np.uint8)
    alpha[0, 0] = 0
    upright = np.concatenate([UPRIGHT, alpha], axis=2)
    laid = np.ascontiguousarray(stored(upright, 6))
    picture = read(saved(Image.fromarray(laid), exif=exif(6)))
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha, alpha[..., 0])


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(orientation: int) -> None:
    assert np.array_equal(read(saved(UPRIGHT, exif=exif(orientation))).pixels, UPRIGHT)


@pytest.mark.parametrize("junk", [b"", b"MM", b"II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08"])
def test_damaged_metadata_does_not_keep_a_picture_out(junk: bytes) -> None:
    assert np.array_equal(read(saved(UPRIGHT, exif=junk)).pixels, UPRIGHT)


def test_grey_and_black_and_white_become_colours() -> None:
    grey = Image.fromarray(UPRIGHT).convert("L")
    expected = np.repeat(np.asarray(grey)[..., np.newaxis], 3, axis=2)
    assert np.array_equal(read(saved(grey)).pixels, expected)
    ink = grey.convert("1")
    assert set(np.unique(read(saved(ink)).pixels)) == {0, 255}


def test_sixteen_bits_of_grey_are_rounded_to_eight() -> None:
    levels = np.array([[0, 128, 257, 300, 32768, 65535]], np.uint16)
    picture = read(saved(Image.fromarray(levels)))
    assert picture.pixels[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_sixteen_bits_of_grey_may_have_a_transparent_level() -> None:
    rows = b"\0" + np.array([7, 300], ">u2").tobytes()
    clear = png_chunk(b"tRNS", (300).to_bytes(2, "big"))
    picture = read(raw_png(2, 1, depth=16, colour=0, rows=rows, extra=[clear]))
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[255, 0]]


def test_sixteen_bits_of_colour_come_in_eight() -> None:
    rows = b"\0" + np.array([0xFFFF, 0x8000, 0x00FF, 0xFFFF], ">u2").tobytes()
    picture = read(raw_png(1, 1, depth=16, colour=6, rows=rows))
    assert picture.pixels[0, 0].tolist() == [255, 128, 0]
    assert picture.alpha is None


def test_ink_colours_become_light() -> None:
    inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan: red
    picture = read(saved(inks, "JPEG", quality=100))
    assert difference(picture.pixels, np.broadcast_to((254, 0, 0), (16, 16, 3))) <= 3


def test_a_palette_with_transparency_keeps_both() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 10, 20, 1, 2, 3])
    image.putdata([0, 1])
    picture = read(saved(image, transparency=bytes([255, 64])))
    assert picture.pixels.tolist() == [[[200, 10, 20], [1, 2, 3]]]
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[255, 64]]


def test_a_colour_can_be_named_transparent() -> None:
    image = Image.fromarray(np.array([[[9, 8, 7], [1, 2, 3]]], np.uint8))
    picture = read(saved(image, transparency=(9, 8, 7)))
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[0, 255]]
    assert picture.pixels.tolist() == [[[9, 8, 7], [1, 2, 3]]]


def test_transparency_is_laid_on_a_background() -> None:
    image = Image.fromarray(np.array([[[200, 0, 0, 0], [200, 0, 0, 128], [200, 0, 0, 255]]], "u1"))
    picture = read(saved(image))
    white, black = picture.opaque(), picture.opaque((0, 0, 0))
    assert white[0, 0].tolist() == [255, 255, 255]
    assert white[0, 2].tolist() == black[0, 2].tolist() == [200, 0, 0]
    assert difference(black[0, 1], np.array([100, 0, 0])) <= 1


def profile_bytes(name: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()  # type: ignore[arg-type]


def swapped_profile() -> bytes:
    """A profile whose red and green primaries are those of sRGB's green and red."""
    data = bytearray(profile_bytes("sRGB"))
    red, green = data.index(b"rXYZ"), data.index(b"gXYZ")
    data[red], data[green] = data[green], data[red]
    return bytes(data).replace(b"s\0R\0G\0B", b"t\0R\0G\0B").replace(b"sRGB b", b"tRGB b")


def test_colours_in_another_space_become_srgb() -> None:
    picture = read(saved(Image.new("RGB", (8, 8), (255, 0, 0)), icc_profile=swapped_profile()))
    red, green, blue = picture.pixels[0, 0].tolist()
    assert green > 240
    assert red < 20
    assert blue < 20


@pytest.mark.parametrize("profile", [b"junk", bytes(200), profile_bytes("LAB")])
def test_a_profile_that_does_not_hold_is_left_out_of_account(profile: bytes) -> None:
    assert np.array_equal(read(saved(UPRIGHT, icc_profile=profile)).pixels, UPRIGHT)


def test_a_picture_in_srgb_is_not_changed() -> None:
    data = saved(UPRIGHT, icc_profile=profile_bytes("sRGB"))
    assert np.array_equal(read(data).pixels, UPRIGHT)


def test_a_profile_keeps_transparency() -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 7))
    picture = read(saved(image, icc_profile=swapped_profile()))
    assert picture.alpha is not None
    assert set(picture.alpha.ravel().tolist()) == {7}
    assert picture.pixels[0, 0, 1] > 240


def test_scans_are_counted_without_decoding() -> None:
    assert count_scans(saved(UPRIGHT, "JPEG")) == 1
    assert 3 <= count_scans(saved(UPRIGHT, "JPEG", progressive=True)) <= 20
    assert count_scans(scan_bomb()) > MAX_SCANS
    # What follows the picture is another one's business.
    assert count_scans(saved(UPRIGHT, "JPEG") + scan_bomb()) == 1
    assert read(saved(UPRIGHT, "JPEG", progressive=True)).size == Size(48, 32)


def test_a_phones_second_picture_is_left_out_of_account() -> None:
    out = io.BytesIO()
    first, second = Image.fromarray(UPRIGHT), Image.new("RGB", (24, 16))
    first.save(out, "MPO", save_all=True, append_images=[second])
    assert is_like(read(out.getvalue()).pixels, UPRIGHT)


def test_a_text_chunk_that_inflates_is_refused() -> None:
    chunk = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2 * 1024**2)))
    data = raw_png(1, 1, depth=8, colour=0, rows=bytes(2), extra=[chunk])
    with pytest.raises(MediaError):
        read(data)


SEEDS = [
    saved(gradient(24, 16), exif=exif(6), icc_profile=profile_bytes("sRGB")),
    saved(gradient(24, 16), "JPEG", exif=exif(3)),
    saved(gradient(24, 16), "JPEG", progressive=True),
    saved(gradient(24, 16), "WEBP", exif=exif(8)),
    saved(Image.fromarray(gradient(24, 16)).convert("P")),
    claiming_png(24, 16),
]


@given(st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
def test_no_damage_is_anything_but_a_picture_or_a_refusal(data: st.DataObject) -> None:
    file = bytearray(data.draw(st.sampled_from(SEEDS)))
    for position in data.draw(st.lists(st.integers(8, len(file) - 1), min_size=1, max_size=6)):
        file[position] = data.draw(st.integers(0, 255))
    file = file[: data.draw(st.integers(8, len(file)))] if data.draw(st.booleans()) else file
    try:
        picture = read(bytes(file), ImageLimits(max_pixels=10_000_000))
    except MediaError:
        return
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.shape == (picture.size.height, picture.size.width, 3)
