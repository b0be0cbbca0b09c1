"""The service with the starter model: real SDXL code, drawn on the processor."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from drawing_service import Running, serving
from PIL import Image

from atrium_common.catalogue import Catalogue
from atrium_common.weights import WeightStore
from atrium_diffusion.domain import Pixels
from atrium_diffusion.testing.judge import judge
from atrium_diffusion.testing.shapes import several
from atrium_text2image.engines import open_engines

pytestmark = pytest.mark.model

CATALOGUE = Path(__file__).parents[3] / "models" / "starter.yaml"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def starter(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """The service as `__main__` builds it from the starter catalogue."""
    entries = Catalogue.load(CATALOGUE).for_service("text2image")
    router = open_engines(entries, store=WeightStore(tmp_path_factory.mktemp("models")))
    async with serving(entries=entries, engine=router.engine_of("sdxl-shapes-128")) as service:
        yield service


def difference(one: Pixels, other: Pixels) -> int:
    """The greatest, in grey levels."""
    return int(np.abs(one.astype(int) - other).max())


async def test_one_request_gives_the_picture_that_was_asked_for(starter: Running) -> None:
    answer = await starter.draw(
        prompt="a red circle", preview={"interval": 4}, denoising={"seed": 1}
    )
    assert judge(answer.pictures[0].pixels, several(1, "red", "circle")).right
    assert {4, 8} >= {preview.step for preview in answer.previews} != set()
    record = answer.pictures[0].start.record
    assert (record.steps, record.width, record.height) == (12, 128, 128)
    assert not record.unusual_size
    assert len(record.model_digest) == 64
    assert answer.usage.millimegapixel_steps == -(-12 * 128 * 128 // 1000)
    assert answer.usage.inference_time.ToTimedelta().total_seconds() > 0


async def test_the_same_seed_gives_the_same_picture_alone_and_under_load(starter: Running) -> None:
    fields = {"prompt": "three green stars", "denoising": {"seed": 7, "steps": 6}}
    exact = {
        "prompt": "three green stars",
        "denoising": {"seed": 7, "steps": 6, "deterministic": True},
    }
    alone = await starter.draw(**fields)
    own = await starter.draw(**exact)
    load = [
        starter.draw(prompt="two blue squares", denoising={"steps": 3 + number, "seed": number})
        for number in range(4)
    ]
    busy, again, *_ = await asyncio.gather(starter.draw(**fields), starter.draw(**exact), *load)
    assert again.pictures[0].data == own.pictures[0].data
    assert difference(busy.pictures[0].pixels, alone.pictures[0].pixels) <= 1
    assert difference(own.pictures[0].pixels, alone.pictures[0].pixels) <= 1


async def test_the_record_in_the_file_draws_the_picture_again(starter: Running) -> None:
    first = await starter.draw(
        prompt="a yellow triangle",
        negative_prompt="blue",
        width=96,
        n=2,
        denoising={"steps": 5, "guidance_scale": 2.0},
        output={"embed_record": True},
    )
    picture = first.pictures[1]
    record = json.loads(Image.open(io.BytesIO(picture.data)).text["atrium"])  # type: ignore[attr-defined]
    again = await starter.draw(
        prompt=record["prompt"],
        negative_prompt=record["negative_prompt"],
        width=record["width"],
        height=record["height"],
        denoising={
            "steps": record["schedule_steps"],
            "guidance_scale": record["guidance_scale"],
            "scheduler": f"SCHEDULER_{record['scheduler'].upper()}",
            "seed": record["seed"],
        },
    )
    assert picture.start.record.unusual_size
    assert difference(again.pictures[0].pixels, picture.pixels) <= 1


async def test_leaving_ends_the_work_within_a_step(starter: Running) -> None:
    call = starter.call()(prompt="a red circle", denoising={"steps": 150})
    while not (await call.read()).HasField("progress"):
        pass
    call.cancel()
    await starter.idle()
    assert len((await starter.draw(denoising={"steps": 1})).pictures) == 1


async def test_a_prompt_past_the_text_window_is_refused_unless_it_may_be_cut(
    starter: Running,
) -> None:
    long = "a red circle " * 40
    error = await starter.refusal(prompt=long)
    assert (error.field, error.reason) == ("prompt", "PROMPT_TOO_LONG")
    answer = await starter.draw(prompt=long, truncate_prompt=True, denoising={"steps": 1})
    assert len(answer.pictures) == 1
