"""Schedulers are the ones that diffusers makes of the model's own config, one per picture."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from starter_sdxl import CPU

from atrium_diffusion.domain import SchedulerKind
from atrium_diffusion.sdxl.schedulers import RECIPES, Schedulers

SDXL_CONFIG: dict[str, Any] = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}
"""As SDXL base 1.0 ships it: it predicts the noise, and its last step is not all noise."""
TRAILING_TOO_MANY = (61, 103, 121, 122)


@pytest.fixture(params=["starter", "sdxl"])
def config(request: pytest.FixtureRequest, starter_folder: Path) -> dict[str, Any]:
    if request.param == "sdxl":
        return SDXL_CONFIG
    loaded: dict[str, Any] = json.loads(
        (starter_folder / "scheduler" / "scheduler_config.json").read_text()
    )
    return loaded


@pytest.mark.parametrize("kind", SchedulerKind)
@pytest.mark.parametrize("steps", [1, 2, 4, 12, 50, 150])
def test_equals_what_a_pipeline_would_use(
    kind: SchedulerKind, steps: int, config: dict[str, Any]
) -> None:
    recipe = RECIPES[kind]
    steps = min(steps, recipe.most_steps)
    pipes_own = EulerDiscreteScheduler.from_config(config).config
    theirs = recipe.scheduler.from_config(pipes_own, **recipe.overrides)  # type: ignore[attr-defined]
    theirs.set_timesteps(steps)
    ours: Any = Schedulers(config, device=CPU).new(kind, steps)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    assert float(ours.init_noise_sigma) == float(theirs.init_noise_sigma)
    if hasattr(theirs, "sigmas"):
        assert torch.equal(ours.sigmas, theirs.sigmas)


@pytest.mark.parametrize("kind", SchedulerKind)
def test_takes_exactly_the_steps_and_ends_without_noise(
    kind: SchedulerKind, config: dict[str, Any]
) -> None:
    schedulers = Schedulers(config, device=CPU)
    generator = torch.Generator().manual_seed(1)
    picture = torch.randn((1, 4, 8, 8), generator=generator)
    for steps in (2, 5, 30):
        scheduler = schedulers.new(kind, steps)
        assert len(scheduler.timesteps) == steps
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        start = float(scheduler.init_noise_sigma)
        sample = torch.randn((1, 4, 8, 8), generator=generator) * start
        for step, timestep in enumerate(scheduler.timesteps):
            scaled = scheduler.scale_model_input(sample, timestep)
            alpha = kept_share(scheduler, step, int(timestep))
            output = oracle(scaled, picture, alpha, config)
            sample = scheduler.step(output, timestep, sample, return_dict=False)[0]
        assert torch.isfinite(sample).all()
        # A model that always sees through the noise is taken at its word.
        assert (sample - picture).abs().max() < 0.2, f"{kind} in {steps} steps"


def kept_share(scheduler: Any, step: int, timestep: int) -> torch.Tensor:
    """How much of the picture is left at a step, 0 to 1, by the scheduler's own book."""
    if hasattr(scheduler, "sigmas"):
        share: torch.Tensor = 1 / (scheduler.sigmas[step] ** 2 + 1)
    else:
        share = scheduler.alphas_cumprod[timestep]
    return share


def oracle(
    noisy: torch.Tensor, picture: torch.Tensor, alpha: torch.Tensor, config: dict[str, Any]
) -> torch.Tensor:
    """What a perfect model would say: the noise, or the velocity towards it."""
    kept, noised = alpha.sqrt(), (1 - alpha).sqrt()
    noise = (noisy - kept * picture) / noised
    if config["prediction_type"] == "epsilon":
        return noise
    velocity: torch.Tensor = kept * noise - noised * picture
    return velocity


@pytest.mark.parametrize("kind", SchedulerKind)
def test_every_number_of_steps_is_laid_out_exactly(
    kind: SchedulerKind, config: dict[str, Any]
) -> None:
    schedulers = Schedulers(config, device=CPU)
    for steps in (*range(3, RECIPES[kind].most_steps, 7), *TRAILING_TOO_MANY):
        if steps <= RECIPES[kind].most_steps:
            timesteps = schedulers.new(kind, steps).timesteps
            assert len(timesteps) == steps
            assert timesteps.min() >= 0
            assert timesteps.max() <= 999


def test_a_picture_does_not_move_anothers_scheduler(config: dict[str, Any]) -> None:
    schedulers = Schedulers(config, device=CPU)
    first, second = (schedulers.new(SchedulerKind.DPMPP_2M, 4) for _ in range(2))
    sample = torch.zeros(1, 4, 8, 8)
    first.step(sample, first.timesteps[0], sample, return_dict=False)
    assert first.step_index == 1  # type: ignore[attr-defined]
    assert second.step_index is None  # type: ignore[attr-defined]
