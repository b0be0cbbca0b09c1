"""Edits by a provider: what it is sent, and what is made of its answers."""

import io
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image
from starlette.responses import Response

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability
from atrium_common.errors import InvalidArgument
from atrium_diffusion.domain import Denoising, PictureJob, PictureMade, Pixels, Source
from atrium_diffusion.testing.provider import (
    SECRET,
    Asked,
    ImageProvider,
    image_provider,
    pictures,
)
from atrium_img2img.domain import DEFAULT_STRENGTH
from atrium_img2img.engines.openai import OpenAIEngine


def entry(url: str) -> ModelEntry:
    options = {"base_url": url, "api_key_env": "FAR_KEY", "sizes": ["64x64", "96x64", "64x96"]}
    return ModelEntry(
        id="far",
        service="img2img",
        capabilities=(Capability.IMAGE_TO_IMAGE,),
        engine="openai",
        options=options,  # type: ignore[arg-type]
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def running() -> AsyncIterator[ImageProvider]:
    async with image_provider() as provider:
        yield provider


@pytest.fixture
def provider(running: ImageProvider, monkeypatch: pytest.MonkeyPatch) -> ImageProvider:
    """A provider that draws and has heard nothing yet."""
    monkeypatch.setenv("FAR_KEY", SECRET)
    running.reset()
    return running


@pytest_asyncio.fixture(loop_scope="session")
async def engine(provider: ImageProvider) -> AsyncIterator[OpenAIEngine]:
    engine = OpenAIEngine([entry(provider.url)])
    await engine.load()
    yield engine
    await engine.close()


def noise(height: int, width: int, seed: int = 1) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def job(*sources: Source, **changes: object) -> PictureJob:
    plain = PictureJob(model="far", prompt="at night", sources=sources, strength=DEFAULT_STRENGTH)
    return replace(plain, **changes)  # type: ignore[arg-type]


async def edited(engine: OpenAIEngine, asked: PictureJob) -> list[PictureMade]:
    async with aclosing(engine.draw(engine.plan(asked))) as events:
        return [event async for event in events if isinstance(event, PictureMade)]


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


async def test_each_upload_is_edited_by_itself(
    engine: OpenAIEngine, provider: ImageProvider
) -> None:
    sources = [Source(pixels=noise(64, 64)), Source(pixels=noise(48, 88, seed=2))]
    plan = engine.plan(job(*sources, n=2))
    assert [(one.width, one.height) for one in plan.pictures] == [(64, 64)] * 2 + [(88, 48)] * 2
    assert plan.millimegapixel_steps == 0
    made = await edited(engine, job(*sources, n=2))
    assert [picture.index for picture in made] == [0, 1, 2, 3]
    assert [picture.pixels.shape for picture in made] == [(64, 64, 3)] * 2 + [(48, 88, 3)] * 2
    first, second = provider.asked
    assert first.path == "/images/edits"
    assert first.fields == {"model": "far", "prompt": "at night", "n": "2", "size": "64x64"}
    np.testing.assert_array_equal(opened(first.files["image"]), sources[0].pixels)
    assert second.fields["size"] == "96x64"
    assert opened(second.files["image"]).shape == (64, 96, 3)
    assert "mask" not in first.files


async def test_a_mask_travels_as_transparency_and_its_outside_stays(
    engine: OpenAIEngine, provider: ImageProvider
) -> None:
    async def negative(asked: Asked) -> Response:
        return pictures(255 - opened(asked.files["image"]))

    provider.handle = negative
    mask = np.zeros((64, 64), np.float32)
    mask[16:48, 16:48] = 1
    mask[0, 0] = 0.5
    source = Source(pixels=noise(64, 64), mask=mask)
    (made,) = await edited(engine, job(source))
    sent = opened(provider.asked[0].files["mask"])
    assert sent.shape == (64, 64, 4)
    assert np.all(sent[16:48, 16:48, 3] == 0)
    assert np.all(sent[mask == 0][:, 3] == 255)
    np.testing.assert_array_equal(made.pixels[mask == 0], source.pixels[mask == 0])
    np.testing.assert_array_equal(made.pixels[mask == 1], 255 - source.pixels[mask == 1])
    assert np.all(np.abs(made.pixels[0, 0].astype(int) - 127) <= 1)


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"strength": 0.5}, "strength"), ({"denoising": Denoising(steps=3)}, "denoising.steps")],
)
async def test_what_it_can_not_do_is_refused_by_name(
    engine: OpenAIEngine, provider: ImageProvider, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        engine.plan(job(Source(pixels=noise(64, 64)), **changes))
    assert caught.value.field == field
    assert provider.asked == []
