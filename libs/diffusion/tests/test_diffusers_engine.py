"""The diffusers engine with the starter model: loads, shares, draws, edits, lets go."""

import asyncio
import gc
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from atrium_common.catalogue import AdapterEntry, Catalogue, ModelEntry
from atrium_common.catalogue_sources import FolderSource
from atrium_common.domain import Capability, ModelState
from atrium_common.errors import Conflict, InvalidArgument, NotFound, Unavailable
from atrium_common.weights import WeightsError, WeightStore
from atrium_diffusion.domain import (
    Denoising,
    LoraUse,
    PictureEvent,
    PictureJob,
    PictureMade,
    Pixels,
    PreviewMade,
    PreviewOptions,
    Source,
    StepTaken,
)
from atrium_diffusion.engines.diffusers import DiffusersEngine
from atrium_diffusion.sdxl.model import SdxlModel
from atrium_diffusion.testing import tiny_lora
from atrium_diffusion.testing.judge import judge, silhouette_iou
from atrium_diffusion.testing.shapes import render, seeded, several

pytestmark = pytest.mark.model

DRAWING, EDITING = "sdxl-shapes-128", "sdxl-shapes-128-edit"


def starter_entries(folder: Path) -> list[ModelEntry]:
    catalogue = Catalogue.load(folder.parents[1] / "starter.yaml")
    return [entry for entry in catalogue if entry.engine == "diffusers"]


@pytest.fixture(scope="module")
async def engine(
    starter_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[DiffusersEngine]:
    store = WeightStore(tmp_path_factory.mktemp("weights"))
    made = DiffusersEngine(starter_entries(starter_folder), store=store, draw_seed=lambda: 1)
    await made.load()
    yield made
    await made.close()


def job(prompt: str = "a red circle", *, model: str = DRAWING, **fields: object) -> PictureJob:
    return PictureJob(model=model, prompt=prompt, **fields)  # type: ignore[arg-type]


async def events_of(engine: DiffusersEngine, asked: PictureJob) -> list[PictureEvent]:
    async with aclosing(engine.draw(engine.plan(asked))) as events:
        return [event async for event in events]


async def pictures_of(engine: DiffusersEngine, asked: PictureJob) -> list[PictureMade]:
    return [e for e in await events_of(engine, asked) if isinstance(e, PictureMade)]


def unets() -> int:
    return sum(type(thing) is UNet2DConditionModel for thing in gc.get_objects())


def states(engine: DiffusersEngine) -> list[ModelState]:
    return [model.state for model in engine.models()]


def test_both_models_are_ready_and_verified(engine: DiffusersEngine) -> None:
    assert states(engine) == [ModelState.READY] * 2
    assert all(model.verified_at is not None for model in engine.models())
    assert [model.id for model in engine.models()] == [DRAWING, EDITING]


async def test_draws_what_is_asked_for(engine: DiffusersEngine) -> None:
    asked = {
        "a red circle": several(1, "red", "circle"),
        "three green stars": several(3, "green", "star"),
        "two blue squares": several(2, "blue", "square"),
    }
    drawn = await asyncio.gather(*(pictures_of(engine, job(prompt)) for prompt in asked))
    for pictures, scene in zip(drawn, asked.values(), strict=True):
        (made,) = pictures
        assert made.pixels.shape == (128, 128, 3)
        assert made.pixels.dtype == np.uint8
        assert judge(made.pixels, scene).right


async def test_tells_of_each_step_and_shows_previews(engine: DiffusersEngine) -> None:
    asked = job(
        n=2,
        denoising=Denoising(steps=4),
        preview=PreviewOptions(interval=2, max_side=64),
    )
    events = await events_of(engine, asked)
    for index in (0, 1):
        own = [event for event in events if event.index == index]
        assert [e.step for e in own if isinstance(e, StepTaken)] == [1, 2, 3, 4]
        assert isinstance(own[-1], PictureMade)
        previews = [e.pixels for e in own if isinstance(e, PreviewMade)]
        assert previews
        assert all(pixels.shape == (64, 64, 3) for pixels in previews)


async def test_an_edit_keeps_the_silhouette_of_what_it_was_given(
    engine: DiffusersEngine,
) -> None:
    given = np.asarray(render(several(1, "red", "circle"), seeded(4)))
    asked = job("a blue circle", model=EDITING, sources=(Source(pixels=given),), strength=0.5)
    (made,) = await pictures_of(engine, asked)
    assert silhouette_iou(made.pixels, given) > 0.7


async def test_a_prompt_past_the_window_is_refused_before_any_work(
    engine: DiffusersEngine,
) -> None:
    too_long = "red circle " * 40
    with pytest.raises(InvalidArgument) as refused:
        engine.plan(job(too_long))
    assert (refused.value.field, refused.value.reason) == ("prompt", "PROMPT_TOO_LONG")
    with pytest.raises(InvalidArgument) as refused:
        engine.plan(job(negative_prompt=too_long))
    assert refused.value.field == "negative_prompt"
    asked = job(too_long, truncate_prompt=True, denoising=Denoising(steps=1))
    assert len(await pictures_of(engine, asked)) == 1


async def test_an_unloaded_model_frees_its_weights_when_no_other_needs_them(
    starter_folder: Path, tmp_path: Path
) -> None:
    gc.collect()
    before = unets()
    engine = DiffusersEngine(starter_entries(starter_folder), store=WeightStore(tmp_path))
    await engine.load_model(DRAWING)
    assert states(engine) == [ModelState.READY, ModelState.UNLOADED]
    await engine.load_model(EDITING)
    await engine.load_model(EDITING)
    assert unets() == before + 1
    await engine.unload_model(DRAWING)
    assert unets() == before + 1
    with pytest.raises(Unavailable, match="not loaded"):
        await engine.verify(DRAWING)
    await engine.verify(EDITING)
    await engine.unload_model(EDITING)
    assert states(engine) == [ModelState.UNLOADED] * 2
    assert unets() == before
    assert len(await pictures_of(engine, job(denoising=Denoising(steps=1)))) == 1
    assert states(engine) == [ModelState.READY, ModelState.UNLOADED], "its first use loads it"
    await engine.close()
    await engine.close()


async def test_an_adapter_changes_the_picture_as_far_as_its_scale(
    starter_folder: Path, tmp_path: Path
) -> None:
    path = tiny_lora.make(tmp_path / "style" / "style.safetensors", starter_folder, text=True)
    style = AdapterEntry(
        id="style",
        kind="lora",
        models=(DRAWING,),
        sources=(FolderSource(kind="folder", path=path.parent),),
    )
    entries = starter_entries(starter_folder)[:1]
    engine = DiffusersEngine(entries, store=WeightStore(tmp_path), adapters=[style])
    assert engine.limits(DRAWING).loras == ("style",)
    await engine.load()

    async def drawn(scale: float | None) -> Pixels:
        used = () if scale is None else (LoraUse(id="style", scale=scale),)
        wanted = Denoising(steps=4, seed=1, loras=used, deterministic=True)
        (made,) = await pictures_of(engine, job(denoising=wanted))
        return made.pixels

    plan = engine.plan(job(denoising=Denoising(loras=(LoraUse(id="style"),))))
    assert plan.loras[0].digest == hashlib.sha256(path.read_bytes()).hexdigest()
    plain, without, with_it, plain_again = [await drawn(s) for s in (None, 0.0, 1.0, None)]
    assert np.abs(without.astype(int) - plain).max() <= 1
    assert not np.array_equal(with_it, plain)
    assert np.array_equal(plain_again, plain)
    await engine.close()


async def test_sdxls_own_layout_is_drawn_in_half_precision(tiny_sdxl: Path, tmp_path: Path) -> None:
    entry = ModelEntry(
        id="tiny",
        service="img2img",
        capabilities=(Capability.IMAGE_TO_IMAGE,),
        engine="diffusers",
        dtype="float16",
        options={
            "variant": "fp16",
            "native_width": 64,
            "native_height": 64,
            "min_side": 64,
            "device": "cpu",
            "threads": 1,
        },
        sources=(FolderSource(kind="folder", path=tiny_sdxl),),
    )
    engine = DiffusersEngine([entry], store=WeightStore(tmp_path))
    await engine.load()
    given = np.asarray(render(several(1, "red", "circle"), seeded(4), side=64))
    for sources in ((), (Source(pixels=given),)):
        wanted = Denoising(steps=2, seed=1)
        asked = job(model="tiny", sources=sources, strength=0.5, denoising=wanted)
        (made,) = await pictures_of(engine, asked)
        assert made.pixels.shape == (64, 64, 3)
        assert made.pixels.std() > 0
    await engine.close()


async def test_a_busy_model_is_not_unloaded(engine: DiffusersEngine) -> None:
    plan = engine.plan(job(denoising=Denoising(steps=50)))
    async with aclosing(engine.draw(plan)) as events:
        await anext(events)
        with pytest.raises(Conflict, match=r"1 requests are running"):
            await engine.unload_model(DRAWING)
    assert states(engine)[0] is ModelState.READY


async def test_a_lost_device_fails_both_models_until_they_are_loaded_again(
    starter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = DiffusersEngine(starter_entries(starter_folder), store=WeightStore(tmp_path))
    await engine.load()

    def lost(*_: object, **__: object) -> None:
        raise torch.AcceleratorError("the device fell off the bus")

    with monkeypatch.context() as patched:
        patched.setattr(SdxlModel, "predict", lost)
        with pytest.raises(Unavailable):
            await events_of(engine, job())
    assert states(engine) == [ModelState.FAILED] * 2
    assert "fell off the bus" in engine.models()[0].detail
    for model in (DRAWING, EDITING):
        await engine.load_model(model)
    assert states(engine) == [ModelState.READY] * 2
    assert len(await pictures_of(engine, job(denoising=Denoising(steps=1)))) == 1
    await engine.close()


async def test_a_model_without_its_files_fails_alone(starter_folder: Path, tmp_path: Path) -> None:
    good, other = starter_entries(starter_folder)
    (source,) = other.sources
    lost = other.model_copy(
        update={"sources": (source.model_copy(update={"path": tmp_path / "nowhere"}),)}
    )
    engine = DiffusersEngine([good, lost], store=WeightStore(tmp_path))
    await engine.load()
    assert states(engine) == [ModelState.READY, ModelState.FAILED]
    assert "nowhere" in engine.models()[1].detail
    with pytest.raises(WeightsError):
        await engine.load_model(EDITING)
    await engine.close()
    alone = DiffusersEngine([lost], store=WeightStore(tmp_path))
    with pytest.raises(WeightsError):
        await alone.load()


async def test_what_is_not_a_model_is_named(engine: DiffusersEngine) -> None:
    for call in (engine.load_model, engine.unload_model, engine.verify):
        with pytest.raises(NotFound) as refused:
            await call("unknown")
        assert refused.value.field == "model"
