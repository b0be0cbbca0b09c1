"""What size a result has, what a mask keeps, and what strength 0 and transparency give."""

import numpy as np
import pytest
from editing_service import Running, asked, photo, png

from atrium.img2img.v1 import img2img_pb2 as pb

NONE, CROP = pb.RESIZE_MODE_NONE, pb.RESIZE_MODE_CROP
PAD, STRETCH = pb.RESIZE_MODE_PAD, pb.RESIZE_MODE_STRETCH

MASK = np.zeros((64, 64), np.uint8)
MASK[16:48, 16:48] = 255


@pytest.mark.parametrize(
    ("size", "fields", "result"),
    [
        ((100, 50), {}, (88, 48)),
        ((1000, 500), {}, (88, 48)),
        ((30, 30), {}, (64, 64)),
        ((100, 50), {"width": 160}, (160, 80)),
        ((100, 50), {"width": 64, "height": 64}, (64, 32)),
        ((100, 50), {"width": 64, "height": 64, "resize_mode": CROP}, (64, 64)),
        ((100, 50), {"width": 64, "height": 64, "resize_mode": PAD}, (64, 64)),
        ((100, 50), {"width": 64, "height": 128, "resize_mode": STRETCH}, (64, 128)),
        ((104, 56), {"resize_mode": NONE}, (104, 56)),
    ],
)
async def test_uploads_get_their_size_by_the_mode(
    shared: Running, size: tuple[int, int], fields: dict[str, object], result: tuple[int, int]
) -> None:
    answer = await shared.edit(png(photo(*size)), **fields)
    (told,) = answer.info.sizes
    assert (told.width, told.height) == result
    assert answer.pictures[0].pixels.shape == (result[1], result[0], 3)
    record = answer.pictures[0].start.record
    assert (record.width, record.height) == result
    assert record.unusual_size == (result != (64, 64))


async def test_a_size_that_does_not_fit_the_model_names_the_upload(shared: Running) -> None:
    for size, fields in (
        ((100, 50), {"resize_mode": NONE}),
        ((8, 8), {"resize_mode": NONE}),
        ((2000, 4), {}),
    ):
        error = await shared.refusal(asked(png(photo(*size)), **fields))
        assert error.field == "image_chunk"
    error = await shared.refusal(asked(png(photo(2000, 20)), width=1024))
    assert error.field == "width"


async def test_strength_0_gives_the_upload_back_and_takes_no_step(shared: Running) -> None:
    answer = await shared.edit(strength=0.0, resize_mode=NONE)
    np.testing.assert_array_equal(answer.pictures[0].pixels, photo())
    assert (answer.info.steps, len(answer.progress)) == (0, 0)
    assert (answer.usage.images, answer.usage.millimegapixel_steps) == (1, 0)


async def test_a_mask_keeps_its_outside_to_the_pixel(shared: Running) -> None:
    transparent = np.dstack([np.full((64, 64, 3), 255, np.uint8), 255 - MASK])
    for mask in (png(MASK), png(transparent)):
        answer = await shared.edit(mask=mask, strength=1.0, n=2)
        for picture in answer.pictures:
            np.testing.assert_array_equal(picture.pixels[MASK == 0], photo()[MASK == 0])
            assert np.mean(picture.pixels[MASK > 0] != photo()[MASK > 0]) > 0.9


async def test_a_mask_is_cut_as_its_picture_is(shared: Running) -> None:
    mask = np.zeros((64, 128), np.uint8)
    mask[:, :64] = 255  # the left half
    fields = {"width": 64, "height": 64, "resize_mode": CROP, "strength": 1.0}
    await shared.edit(png(photo(128, 64)), mask=png(mask), **fields)
    (source,) = shared.engine.drawn[-1].job.sources
    assert source.mask is not None
    assert np.all(source.mask[:, :30] == 1)
    assert np.all(source.mask[:, 34:] == 0)


async def test_transparency_of_a_picture_becomes_white(shared: Running) -> None:
    clear = np.zeros((64, 64, 4), np.uint8)
    answer = await shared.edit(png(clear), strength=0.0)
    assert np.all(answer.pictures[0].pixels == 255)
