"""A request is decided or refused by name before any work, with the range in the message."""

from pathlib import Path

import numpy as np
import pytest

from atrium_common.catalogue import AdapterEntry, CatalogueError, ModelEntry
from atrium_common.domain import Capability
from atrium_common.errors import AtriumError, InvalidArgument, NotFound
from atrium_common.weights import WeightStore
from atrium_diffusion.domain import (
    AppliedLora,
    Denoising,
    LoraUse,
    PictureJob,
    SchedulerKind,
    Source,
)
from atrium_diffusion.engines.diffusers import DiffusersEngine

TOY = {
    "native_width": 128,
    "native_height": 128,
    "min_side": 64,
    "max_side": 256,
    "max_pixels": 49_152,
    "default_steps": 12,
    "default_guidance_scale": 3.0,
}
DIGEST = "ab" * 32


def entry(**options: object) -> ModelEntry:
    return ModelEntry(
        id="toy",
        service="text2image",
        capabilities=(Capability.TEXT_TO_IMAGE,),
        engine="diffusers",
        digest=DIGEST,
        options={**TOY, **options},
    )


def lora(name: str, *models: str) -> AdapterEntry:
    return AdapterEntry(id=name, kind="lora", models=models, digest=f"{name:0<64}"[:64])


ADAPTERS = (lora("b", "toy"), lora("a", "other", "toy"), lora("c", "other"))


@pytest.fixture
def engine(tmp_path: Path) -> DiffusersEngine:
    return make(tmp_path)


def make(root: Path, **options: object) -> DiffusersEngine:
    return DiffusersEngine(
        [entry(**options)], store=WeightStore(root), adapters=ADAPTERS, draw_seed=lambda: 41
    )


def job(**fields: object) -> PictureJob:
    return PictureJob(**{"model": "toy", "prompt": "a star", **fields})  # type: ignore[arg-type]


def source(height: int, width: int) -> Source:
    return Source(pixels=np.zeros((height, width, 3), np.uint8))


def test_what_is_not_asked_for_is_the_models(engine: DiffusersEngine) -> None:
    plan = engine.plan(job(n=2))
    assert [(p.index, p.width, p.height, p.seed, p.steps) for p in plan.pictures] == [
        (0, 128, 128, 41, 12),
        (1, 128, 128, 42, 12),
    ]
    assert (plan.schedule_steps, plan.guidance_scale) == (12, 3.0)
    assert plan.scheduler is SchedulerKind.EULER
    assert not plan.unusual_size
    assert plan.digest == DIGEST
    assert plan.engine.startswith("diffusers 0.")


def test_what_is_asked_for_is_kept(engine: DiffusersEngine) -> None:
    wanted = Denoising(
        steps=4, guidance_scale=0.0, seed=7, scheduler=SchedulerKind.LCM, loras=(LoraUse(id="a"),)
    )
    plan = engine.plan(job(width=192, height=256, denoising=wanted))
    (picture,) = plan.pictures
    assert (picture.width, picture.height, picture.seed, picture.steps) == (192, 256, 7, 4)
    assert (plan.schedule_steps, plan.guidance_scale) == (4, 0.0)
    assert plan.scheduler is SchedulerKind.LCM
    assert plan.unusual_size
    assert plan.millimegapixel_steps == -(-192 * 256 * 4 // 1000)


def test_one_side_given_the_other_is_native(engine: DiffusersEngine) -> None:
    (picture,) = engine.plan(job(width=64)).pictures
    assert (picture.width, picture.height) == (64, 128)


def test_loras_are_in_one_order_whatever_the_asking(engine: DiffusersEngine) -> None:
    uses = (LoraUse(id="b", scale=0.5), LoraUse(id="a"))
    for order in (uses, uses[::-1]):
        plan = engine.plan(job(denoising=Denoising(loras=order)))
        assert plan.loras == (
            AppliedLora(id="a", digest=ADAPTERS[1].digest, scale=1.0),
            AppliedLora(id="b", digest=ADAPTERS[0].digest, scale=0.5),
        )


@pytest.mark.parametrize(
    ("strength", "steps"), [(0.0, 0), (0.01, 1), (0.5, 10), (0.66, 13), (0.99, 19), (1.0, 20)]
)
def test_an_edit_takes_its_strengths_share_of_the_steps(
    engine: DiffusersEngine, strength: float, steps: int
) -> None:
    sources = (source(64, 128), source(128, 128))
    asked = job(sources=sources, n=2, strength=strength, denoising=Denoising(steps=20, seed=5))
    plan = engine.plan(asked)
    assert plan.schedule_steps == 20
    assert [p.steps for p in plan.pictures] == [steps] * 4
    assert [p.seed for p in plan.pictures] == [5, 6, 7, 8]
    assert [p.source for p in plan.pictures] == [sources[0]] * 2 + [sources[1]] * 2
    assert [(p.width, p.height) for p in plan.pictures] == [(128, 64)] * 2 + [(128, 128)] * 2
    assert plan.unusual_size


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"width": 100}, "width", "multiple of 8 from 64 to 256 pixels, not 100"),
        ({"height": 56}, "height", "from 64 to 256 pixels, not 56"),
        ({"width": 1_000_000}, "width", "from 64 to 256 pixels, not 1000000"),
        ({"height": -8}, "height", "from 64 to 256"),
        ({"width": 256, "height": 256}, "width", "at most 49152 pixels, not 256 x 256"),
        ({"sources": (source(60, 128),)}, "height", "from 64 to 256 pixels, not 60"),
        ({"denoising": Denoising(steps=151)}, "denoising.steps", "from 1 to 150 steps, not 151"),
        ({"denoising": Denoising(steps=0)}, "denoising.steps", "from 1 to 150 steps, not 0"),
        (
            {"denoising": Denoising(steps=51, scheduler=SchedulerKind.TCD)},
            "denoising.steps",
            "tcd takes from 1 to 50 steps, not 51",
        ),
    ],
)
def test_what_the_model_cant_do_is_refused_by_name(
    engine: DiffusersEngine, fields: dict[str, object], field: str, message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message) as refused:
        engine.plan(job(**fields))
    assert refused.value.field == field


@pytest.mark.parametrize("name", ["c", "d"])
def test_a_lora_of_another_model_does_not_exist(engine: DiffusersEngine, name: str) -> None:
    with pytest.raises(NotFound, match=f"no LoRA '{name}'") as refused:
        engine.plan(job(denoising=Denoising(loras=(LoraUse(id=name),))))
    assert refused.value.field == "denoising.loras"


def test_another_model_does_not_exist(engine: DiffusersEngine) -> None:
    with pytest.raises(NotFound) as refused:
        engine.plan(job(model="other"))
    assert refused.value.field == "model"


def test_limits_are_known_without_weights(engine: DiffusersEngine) -> None:
    limits = engine.limits("toy")
    assert (limits.native_width, limits.min_side, limits.max_side) == (128, 64, 256)
    assert (limits.max_pixels, limits.default_steps) == (49_152, 12)
    assert limits.default_scheduler is SchedulerKind.EULER
    assert limits.loras == ("b", "a")


def test_the_default_steps_never_exceed_what_a_scheduler_can_do(tmp_path: Path) -> None:
    engine = make(tmp_path, default_steps=80)
    plan = engine.plan(job(denoising=Denoising(scheduler=SchedulerKind.LCM)))
    assert plan.schedule_steps == 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 3}, "options.steps"),
        ({"default_scheduler": "heun"}, "options.default_scheduler"),
        ({"min_side": 60}, "options.min_side"),
        ({"vae": "vae"}, "options.vae: .*not absolute"),
        ({"native_width": 512}, "native size is outside"),
        ({"max_pixels": 8192}, "more pixels than max_pixels"),
    ],
)
def test_options_that_do_not_hold_are_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(CatalogueError, match=message):
        make(tmp_path, **options)


def test_a_dtype_that_torch_does_not_compute_in_is_refused(tmp_path: Path) -> None:
    odd = entry().model_copy(update={"dtype": "int4"})
    with pytest.raises(CatalogueError, match="toy: dtype: 'int4' is not one of float32"):
        DiffusersEngine([odd], store=WeightStore(tmp_path))


async def test_a_model_without_its_files_draws_nothing(engine: DiffusersEngine) -> None:
    engine.check_ready(job().model)
    with pytest.raises(AtriumError, match="has failed"):  # its first use would load it
        await anext(engine.draw(engine.plan(job())))
    with pytest.raises(AtriumError, match="has failed"):
        engine.check_ready(job().model)
