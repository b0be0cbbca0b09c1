"""The engine without a model keeps the promises that every picture engine makes."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from picture_requests import MODEL, fake_engine, job, noise

from atrium_common.catalogue import CatalogueError
from atrium_common.domain import ModelState
from atrium_common.errors import AtriumError, InvalidArgument, NotFound, Unavailable
from atrium_diffusion.domain import (
    Denoising,
    LoraUse,
    PictureEvent,
    PictureJob,
    PictureMade,
    Pixels,
    PreviewMade,
    PreviewOptions,
    SchedulerKind,
    Source,
    StepTaken,
)
from atrium_diffusion.engines.base import PictureEngine
from atrium_diffusion.engines.fake import FakeEngine


async def events(asked: PictureJob, engine: FakeEngine | None = None) -> list[PictureEvent]:
    engine = engine or fake_engine()
    await engine.load()
    return [event async for event in engine.draw(engine.plan(asked))]


async def drawn(asked: PictureJob) -> list[Pixels]:
    made = [event for event in await events(asked) if isinstance(event, PictureMade)]
    return [event.pixels for event in sorted(made, key=lambda event: event.index)]


async def test_it_is_a_picture_engine_whose_models_come_and_go() -> None:
    engine = fake_engine()
    port: PictureEngine = engine
    assert [info.state for info in port.models()] == [ModelState.UNLOADED]
    await port.load()
    await port.verify(MODEL)
    (info,) = port.models()
    assert info.state is ModelState.READY
    assert info.verified_at is not None
    await port.close()
    await port.close()
    assert port.models()[0].state is ModelState.UNLOADED
    with pytest.raises(Unavailable):
        await anext(engine.draw(engine.plan(job())))


async def test_every_step_of_every_picture_is_told_before_the_picture() -> None:
    told = await events(job(n=2))
    steps = [event for event in told if isinstance(event, StepTaken)]
    for index in (0, 1):
        assert [step.step for step in steps if step.index == index] == [1, 2, 3]
    assert {step.steps for step in steps} == {3}
    assert [event.index for event in told[6:]] == [0, 1]
    assert all(isinstance(event, PictureMade) for event in told[6:])


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a blue square"},
        {"negative_prompt": "blur"},
        {"denoising": Denoising(steps=4, seed=7)},
        {"denoising": Denoising(steps=3, seed=8)},
        {"denoising": Denoising(steps=3, seed=7, guidance_scale=2.0)},
        {"denoising": Denoising(steps=3, seed=7, scheduler=SchedulerKind.DDIM)},
        {"denoising": Denoising(steps=3, seed=7, loras=(LoraUse(id="frost"),))},
        {"denoising": Denoising(steps=3, seed=7, loras=(LoraUse(id="frost", scale=0.5),))},
    ],
)
async def test_the_same_request_gives_the_same_picture_and_another_one_another(
    change: dict[str, object],
) -> None:
    (first,), (again,), (other,) = (
        await drawn(job()),
        await drawn(job()),
        await drawn(job(**change)),
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (64, 64, 3)


async def test_picture_i_has_the_seed_plus_i() -> None:
    second = (await drawn(job(n=2)))[1]
    (alone,) = await drawn(job(denoising=Denoising(steps=3, seed=8)))
    assert np.array_equal(second, alone)
    assert [one.seed for one in fake_engine().plan(job(denoising=Denoising(), n=2)).pictures] == [
        11,
        12,
    ]


async def test_an_edit_keeps_what_the_mask_keeps() -> None:
    upload = noise(32, 48)
    mask = np.zeros((48, 32), np.float32)
    mask[:24] = 1.0
    source = Source(pixels=upload, mask=mask, digest="aa", mask_digest="bb")
    first, second = await drawn(job(sources=(source,), strength=0.8, n=2))
    for edited in (first, second):
        assert edited.shape == upload.shape
        assert np.array_equal(edited[24:], upload[24:])
        assert not np.array_equal(edited[:24], upload[:24])
    assert not np.array_equal(first, second)


async def test_strength_decides_steps_and_likeness() -> None:
    upload = noise(64, 64)
    ten = Denoising(steps=10, seed=7)
    edit = job(sources=(Source(pixels=upload),), denoising=ten)
    distances = []
    for strength, steps in ((0.0, 0), (0.04, 1), (0.5, 5), (1.0, 10)):
        asked = replace(edit, strength=strength)
        plan = fake_engine().plan(asked)
        assert [one.steps for one in plan.pictures] == [steps]
        assert plan.schedule_steps == 10
        (edited,) = await drawn(asked)
        distances.append(float(np.abs(edited.astype(int) - upload).mean()))
    assert distances == sorted(distances)
    assert distances[0] == 0.0
    (anew,) = await drawn(job(denoising=ten))
    (ignored,) = await drawn(replace(edit, strength=1.0))
    assert np.array_equal(ignored, anew)


async def test_result_j_of_source_i_is_i_n_plus_j() -> None:
    sources = (Source(pixels=noise(32, 48)), Source(pixels=noise(64, 16)))
    plan = fake_engine().plan(job(sources=sources, strength=0.5, n=3))
    assert [one.index for one in plan.pictures] == list(range(6))
    assert [one.source for one in plan.pictures] == [sources[0]] * 3 + [sources[1]] * 3
    assert [(one.width, one.height) for one in plan.pictures] == [(32, 48)] * 3 + [(64, 16)] * 3
    assert [one.seed for one in plan.pictures] == list(range(7, 13))


@pytest.mark.parametrize("side", [32, 128])
async def test_previews_come_every_so_many_steps(side: int) -> None:
    five = Denoising(steps=5, seed=7)
    asked = job(width=128, denoising=five, preview=PreviewOptions(interval=2, max_side=side))
    views = [event for event in await events(asked) if isinstance(event, PreviewMade)]
    assert [view.step for view in views] == [2, 4]
    assert {view.pixels.shape for view in views} == {(side // 2, side, 3)}


async def test_leaving_stops_it_within_the_step() -> None:
    engine = fake_engine(seconds_per_step=0.001)
    await engine.load()
    plan = engine.plan(job(denoising=Denoising(steps=150)))
    async with aclosing(engine.draw(plan)) as stream:
        async for event in stream:
            if cast("StepTaken", event).step == 5:
                break
    assert (engine.started, engine.running, engine.steps) == (1, 0, 5)
    assert engine.drawn == [plan]


async def test_a_cancelled_caller_leaves_nothing_running() -> None:
    engine = fake_engine(seconds_per_step=30)
    drawing = [asyncio.create_task(events(job(), engine)) for _ in range(3)]
    while engine.running < 3:  # noqa: ASYNC110 - no event for it
        await asyncio.sleep(0)
    for task in drawing:
        task.cancel()
    await asyncio.gather(*drawing, return_exceptions=True)
    assert (engine.running, engine.steps) == (0, 0)


@pytest.mark.parametrize(
    ("change", "kind", "field"),
    [
        ({"model": "nothing"}, NotFound, "model"),
        ({"width": 12}, InvalidArgument, "width"),
        ({"width": 1_000_000}, InvalidArgument, "width"),
        ({"height": 8}, InvalidArgument, "height"),
        ({"denoising": Denoising(steps=151)}, InvalidArgument, "denoising.steps"),
        ({"denoising": Denoising(loras=(LoraUse(id="no"),))}, NotFound, "denoising.loras"),
        ({"prompt": "word " * 78}, InvalidArgument, "prompt"),
        ({"negative_prompt": "word " * 78}, InvalidArgument, "negative_prompt"),
        ({"sources": (Source(pixels=noise(60, 64)),)}, InvalidArgument, "width"),
    ],
)
def test_what_it_can_not_do_is_refused_before_any_work(
    change: dict[str, object], kind: type[AtriumError], field: str
) -> None:
    engine = fake_engine()
    with pytest.raises(kind) as refusal:
        engine.plan(job(**change))
    assert refusal.value.field == field
    assert engine.started == 0


async def test_a_long_prompt_is_cut_when_asked() -> None:
    long, cut = "word " * 78, "word " * 77
    first = await drawn(job(prompt=long, truncate_prompt=True))
    assert np.array_equal(first, await drawn(job(prompt=cut)))


def test_a_plan_tells_defaults_and_what_is_unusual() -> None:
    engine = fake_engine()
    limits = engine.limits(MODEL)
    assert limits.loras == ("frost",)
    plan = engine.plan(job(denoising=Denoising()))
    assert plan.schedule_steps == limits.default_steps
    assert plan.guidance_scale == limits.default_guidance_scale
    assert plan.scheduler is limits.default_scheduler
    assert not plan.unusual_size
    assert plan.millimegapixel_steps == 17  # 4 x 64 x 64, rounded up
    assert engine.plan(job(width=72)).unusual_size


def test_an_option_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(CatalogueError, match="seconds_per_stop"):
        fake_engine(seconds_per_stop=1)
