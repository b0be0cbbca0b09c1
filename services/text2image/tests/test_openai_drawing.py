"""The images API as an engine, against a server that plays a provider."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import pytest_asyncio
from drawing_service import serving
from starlette.responses import HTMLResponse

from atrium.common.v1 import image_pb2
from atrium.text2image.v1 import text2image_pb2 as pb
from atrium_common.catalogue import CatalogueError, ModelEntry
from atrium_common.domain import Capability, ModelState
from atrium_common.errors import (
    AtriumError,
    InvalidArgument,
    NotFound,
    Overloaded,
    TooLarge,
    Unavailable,
)
from atrium_common.testing import gateway_metadata
from atrium_diffusion.domain import (
    Denoising,
    LoraUse,
    PictureJob,
    PictureMade,
    PreviewOptions,
    SchedulerKind,
)
from atrium_diffusion.testing.provider import (
    SECRET,
    Handler,
    ImageProvider,
    answers,
    image_provider,
    items,
    pictures,
    refuses,
)
from atrium_text2image.engines.openai import OpenAIEngine

GREY = np.full((32, 32, 3), 7, np.uint8)


def entry(url: str, id: str = "far", **options: object) -> ModelEntry:
    given = {"base_url": url, "api_key_env": "FAR_KEY", "sizes": ["32x32", "48x32"], **options}
    return ModelEntry(
        id=id,
        service="text2image",
        capabilities=(Capability.TEXT_TO_IMAGE,),
        engine="openai",
        options=given,  # type: ignore[arg-type]
    )


@asynccontextmanager
async def opened(*entries: ModelEntry) -> AsyncIterator[OpenAIEngine]:
    engine = OpenAIEngine(entries)
    await engine.load()
    try:
        yield engine
    finally:
        await engine.close()


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
    async with opened(entry(provider.url, model="image-x")) as engine:
        yield engine


def job(**changes: object) -> PictureJob:
    return replace(PictureJob(model="far", prompt="a red circle"), **changes)  # type: ignore[arg-type]


async def drawn(engine: OpenAIEngine, asked: PictureJob) -> list[PictureMade]:
    async with aclosing(engine.draw(engine.plan(asked))) as events:
        return [event async for event in events if isinstance(event, PictureMade)]


async def test_pictures_come_in_order_and_count_as_no_steps(
    engine: OpenAIEngine, provider: ImageProvider
) -> None:
    plan = engine.plan(job(n=3, width=48))
    assert plan.millimegapixel_steps == 0
    assert (plan.scheduler, plan.engine) == (None, "openai image-x")
    made = await drawn(engine, job(n=3, width=48))
    assert [picture.index for picture in made] == [0, 1, 2]
    for number, picture in enumerate(made):
        assert picture.pixels.shape == (32, 48, 3)
        assert np.all(picture.pixels == 10 * number)
        assert picture.seconds > 0
    (asked,) = provider.asked
    assert asked.path == "/images/generations"
    assert asked.key == f"Bearer {SECRET}"
    assert asked.fields == {
        "model": "image-x",
        "prompt": "a red circle",
        "n": 3,
        "size": "48x32",
    }


async def test_options_of_the_catalogue_travel(provider: ImageProvider) -> None:
    options = {"quality": "low", "response_format": "b64_json", "max_prompt_characters": 5}
    async with opened(entry(provider.url, **options)) as engine:
        with pytest.raises(InvalidArgument) as caught:
            engine.plan(job())
        assert (caught.value.field, caught.value.reason) == ("prompt", "PROMPT_TOO_LONG")
        await drawn(engine, job(truncate_prompt=True))
    fields = provider.asked[-1].fields
    assert fields["quality"] == "low"
    assert fields["response_format"] == "b64_json"
    assert (fields["prompt"], fields["model"], fields["size"]) == ("a red", "far", "32x32")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"negative_prompt": "blue"}, "negative_prompt"),
        ({"denoising": Denoising(steps=4)}, "denoising.steps"),
        ({"denoising": Denoising(guidance_scale=0.0)}, "denoising.guidance_scale"),
        ({"denoising": Denoising(scheduler=SchedulerKind.DDIM)}, "denoising.scheduler"),
        ({"denoising": Denoising(seed=0)}, "denoising.seed"),
        ({"denoising": Denoising(loras=(LoraUse(id="a"),))}, "denoising.loras"),
        ({"denoising": Denoising(deterministic=True)}, "denoising.deterministic"),
        ({"preview": PreviewOptions(interval=1)}, "preview.interval"),
        ({"priority": 1}, "priority"),
        ({"n": 11}, "n"),
        ({"width": 40}, "width"),
        ({"height": 40}, "height"),
        ({"width": 32, "height": 48}, "width"),
    ],
)
async def test_what_a_provider_can_not_do_is_refused_by_name(
    engine: OpenAIEngine, provider: ImageProvider, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        engine.plan(job(**changes))
    assert caught.value.field == field
    if field in ("width", "height"):
        assert "32x32, 48x32" in caught.value.message
    assert provider.asked == []


async def test_limits_are_those_of_its_sizes(engine: OpenAIEngine) -> None:
    limits = engine.limits("far")
    assert (limits.native_width, limits.native_height) == (32, 32)
    assert (limits.min_side, limits.max_side, limits.max_pixels) == (32, 48, 48 * 32)
    assert (limits.default_steps, limits.default_scheduler) == (0, None)
    for call in (lambda: engine.limits("other"), lambda: engine.plan(job(model="other"))):
        with pytest.raises(NotFound):
            call()


@pytest.mark.parametrize(
    ("handler", "error", "reason"),
    [
        (refuses(400, code="moderation_blocked"), InvalidArgument, "MODERATION_BLOCKED"),
        (refuses(422), InvalidArgument, "INVALID_ARGUMENT"),
        (refuses(401), Unavailable, "PROVIDER_REFUSED"),
        (refuses(429), Overloaded, "OVERLOADED"),
        (refuses(413), TooLarge, "TOO_LARGE"),
        (refuses(503), Unavailable, "PROVIDER_FAILED"),
    ],
)
async def test_errors_become_ours_without_secrets(
    engine: OpenAIEngine,
    provider: ImageProvider,
    capsys: pytest.CaptureFixture[str],
    handler: Handler,
    error: type[AtriumError],
    reason: str,
) -> None:
    provider.handle = handler
    with pytest.raises(error) as caught:
        await drawn(engine, job())
    assert type(caught.value) is error
    assert caught.value.reason == reason
    assert SECRET not in caught.value.message
    assert SECRET not in capsys.readouterr().out
    assert len(provider.asked) == 1, "trying again is the caller's choice"


async def test_a_refused_field_is_named_as_ours(
    engine: OpenAIEngine, provider: ImageProvider
) -> None:
    provider.handle = refuses(400, param="size")
    with pytest.raises(InvalidArgument) as caught:
        await drawn(engine, job())
    assert caught.value.field == "width"
    provider.handle = refuses(429, headers={"retry-after": "7"})
    with pytest.raises(Overloaded) as busy:
        await drawn(engine, job())
    assert busy.value.retry_after == timedelta(seconds=7)


@pytest.mark.parametrize(
    "handler",
    [
        answers(items()),
        answers(items({"url": "http://127.0.0.1:9/secret.png"})),
        answers(items({"b64_json": "no base64!"})),
        answers(items({"b64_json": "bm8gcGljdHVyZQ=="})),
        answers(items({"b64_json": 5})),
        answers(pictures(np.zeros((32, 40, 3), np.uint8))),
        answers(pictures(np.zeros((320, 320, 3), np.uint8))),
        answers(HTMLResponse("<p>Hello.</p>")),
    ],
)
async def test_an_answer_without_the_picture_is_no_success(
    engine: OpenAIEngine, provider: ImageProvider, handler: Handler
) -> None:
    provider.handle = handler
    with pytest.raises(Unavailable) as caught:
        await drawn(engine, job())
    assert caught.value.reason == "PROVIDER_FAILED"


async def test_what_came_of_too_few_is_given(engine: OpenAIEngine, provider: ImageProvider) -> None:
    provider.handle = answers(pictures(GREY, GREY))
    made: list[int] = []

    async def take() -> None:
        async for event in engine.draw(engine.plan(job(n=3))):
            assert isinstance(event, PictureMade)
            made.append(event.index)

    with pytest.raises(Unavailable):
        await take()
    assert made == [0, 1]


async def test_leaving_closes_the_connection(engine: OpenAIEngine, provider: ImageProvider) -> None:
    provider.handle = provider.wait
    task = asyncio.create_task(drawn(engine, job()))
    await asyncio.wait_for(provider.arrived.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(provider.left.wait(), 5)


async def test_silence_is_cut_short(provider: ImageProvider) -> None:
    provider.handle = provider.wait
    async with opened(entry(provider.url, timeout_seconds=0.2)) as engine:
        with pytest.raises(Unavailable, match="in time"):
            await drawn(engine, job())


async def test_verifying_asks_for_no_picture(engine: OpenAIEngine, provider: ImageProvider) -> None:
    await engine.verify("far")
    provider.models_status = 404  # servers without a list of models
    await engine.verify("far")
    provider.models_status = 401
    with pytest.raises(Unavailable):
        await engine.verify("far")
    assert provider.asked == []


async def test_a_missing_key_fails_its_model_alone(
    provider: ImageProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_KEY", raising=False)
    entries = entry(provider.url), entry(provider.url, id="lost", api_key_env="NO_KEY")
    async with opened(*entries) as engine:
        far, lost = engine.models()
        assert (far.state, lost.state) == (ModelState.READY, ModelState.FAILED)
        assert "NO_KEY" in lost.detail
        with pytest.raises(Unavailable):
            await drawn(engine, job(model="lost"))


async def test_through_the_service_its_pictures_count_as_pictures(provider: ImageProvider) -> None:
    entries = [entry(provider.url)]
    async with serving(entries=entries, engine=OpenAIEngine(entries)) as service:
        answer = await service.draw(n=2, output={"embed_record": True})
        refused = await service.refusal(denoising={"seed": 1})
        reply = await service.stub.ListModels(pb.ListModelsRequest(), metadata=gateway_metadata())
    assert [picture.pixels.shape for picture in answer.pictures] == [(32, 32, 3)] * 2
    assert (answer.info.steps, answer.info.n) == (0, 2)
    assert (answer.usage.images, answer.usage.millimegapixel_steps) == (2, 0)
    assert answer.usage.inference_time.ToTimedelta().total_seconds() > 0
    record = answer.pictures[0].start.record
    assert (record.engine, record.scheduler) == ("openai far", image_pb2.SCHEDULER_UNSPECIFIED)
    assert (refused.field, refused.reason) == ("denoising.seed", "UNSUPPORTED_PARAMETER")
    assert reply.limits[0].default_scheduler == image_pb2.SCHEDULER_UNSPECIFIED


@pytest.mark.parametrize(
    ("option", "value"),
    [("sizes", []), ("sizes", ["large"]), ("max_images", 17), ("style", "vivid")],
)
def test_an_option_that_does_not_hold_is_named(option: str, value: object) -> None:
    with pytest.raises(CatalogueError, match=option):
        OpenAIEngine([entry("http://127.0.0.1:9", **{option: value})])
