"""The service with the starter model: real SDXL code, drawn on the processor."""

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
import pytest_asyncio
from editing_service import Running, png, serving
from PIL import Image

from atrium_common.catalogue import Catalogue
from atrium_common.weights import WeightStore
from atrium_diffusion.testing.judge import read, silhouette_iou
from atrium_diffusion.testing.shapes import Figure, render, several
from atrium_img2img.engines import open_engines

pytestmark = pytest.mark.model

CATALOGUE = Path(__file__).parents[3] / "models" / "starter.yaml"
RED_CIRCLE = np.asarray(render(several(1, "red", "circle"), Random(2)))  # noqa: S311 - no secret


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def starter(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """The service as `__main__` builds it from the starter catalogue."""
    entries = Catalogue.load(CATALOGUE).for_service("img2img")
    router = open_engines(entries, store=WeightStore(tmp_path_factory.mktemp("models")))
    engine = router.engine_of("sdxl-shapes-128-edit")
    spool = tmp_path_factory.mktemp("spool")
    async with serving(spool, entries=entries, engine=engine) as service:
        yield service


async def test_a_weak_edit_recolours_and_a_strong_one_reshapes(starter: Running) -> None:
    circle = png(RED_CIRCLE)
    weak = await starter.edit(circle, prompt="a blue circle", strength=0.3, denoising={"seed": 3})
    strong = await starter.edit(circle, prompt="a blue star", strength=0.7, denoising={"seed": 3})
    records = [answer.pictures[0].start.record for answer in (weak, strong)]
    assert [(record.steps, record.schedule_steps) for record in records] == [(3, 12), (8, 12)]
    recoloured, reshaped = (answer.pictures[0].pixels for answer in (weak, strong))
    assert silhouette_iou(recoloured, RED_CIRCLE) > 0.85
    largest = read(recoloured).largest
    assert largest is not None
    assert largest.colour != "red"
    assert read(reshaped).largest == Figure("blue", "star")
    assert silhouette_iou(reshaped, RED_CIRCLE) < 0.7


async def test_a_masked_edit_leaves_every_pixel_outside_as_it_was(starter: Running) -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[:, 64:] = 255
    mask[60:70, 60:64] = 128
    answer = await starter.edit(
        png(RED_CIRCLE), mask=png(mask), prompt="a blue star", strength=1.0, n=2, mask_blur=0
    )
    for picture in answer.pictures:
        np.testing.assert_array_equal(picture.pixels[mask == 0], RED_CIRCLE[mask == 0])
        assert np.any(picture.pixels[mask == 255] != RED_CIRCLE[mask == 255])


async def test_the_record_in_the_file_edits_the_picture_again(starter: Running) -> None:
    source = png(RED_CIRCLE)
    first = await starter.edit(
        source,
        prompt="a green circle",
        strength=0.5,
        denoising={"steps": 8, "guidance_scale": 2.0, "deterministic": True},
        output={"embed_record": True},
    )
    picture = first.pictures[0]
    record = json.loads(Image.open(io.BytesIO(picture.data)).text["atrium"])  # type: ignore[attr-defined]
    again = await starter.edit(
        source,
        prompt=record["prompt"],
        strength=record["strength"],
        denoising={
            "steps": record["schedule_steps"],
            "guidance_scale": record["guidance_scale"],
            "scheduler": f"SCHEDULER_{record['scheduler'].upper()}",
            "seed": record["seed"],
            "deterministic": record["deterministic"],
        },
    )
    np.testing.assert_array_equal(again.pictures[0].pixels, picture.pixels)
    assert again.pictures[0].start.record.source_digest == record["source_digest"]
