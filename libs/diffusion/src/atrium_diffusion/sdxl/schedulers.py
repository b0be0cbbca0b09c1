"""How denoising steps are taken: diffusers' schedulers under the names of the wire.

`model.py` makes a fresh one per picture, because a scheduler holds its picture's state.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)

from atrium_diffusion.domain import SchedulerKind
from atrium_diffusion.model import Scheduler
from atrium_diffusion.planning import MAX_STEPS

_DISTILLED_STEPS = 50
"""LCM and TCD take their steps among the 50 that their models were distilled from."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a kind is made of a model's own scheduler config.

    Attributes:
        scheduler: Class of diffusers.
        overrides: What differs from the model's config.
        most_steps: Most steps that it can lay out.
    """

    scheduler: type
    overrides: Mapping[str, object] = field(default_factory=dict)
    most_steps: int = MAX_STEPS


def _dpm(algorithm: str, *, karras: bool) -> Recipe:
    return Recipe(
        DPMSolverMultistepScheduler,
        {
            "algorithm_type": algorithm,
            "solver_order": 2,
            "use_karras_sigmas": karras,
            "final_sigmas_type": "zero",
        },
    )


# `clip_sample` would cut latents to -1..1: it is meant for models that work on pixels.
RECIPES: Mapping[SchedulerKind, Recipe] = {
    SchedulerKind.EULER: Recipe(EulerDiscreteScheduler),
    SchedulerKind.EULER_ANCESTRAL: Recipe(EulerAncestralDiscreteScheduler),
    SchedulerKind.DPMPP_2M: _dpm("dpmsolver++", karras=False),
    SchedulerKind.DPMPP_2M_KARRAS: _dpm("dpmsolver++", karras=True),
    SchedulerKind.DPMPP_2M_SDE: _dpm("sde-dpmsolver++", karras=False),
    SchedulerKind.DPMPP_2M_SDE_KARRAS: _dpm("sde-dpmsolver++", karras=True),
    SchedulerKind.UNIPC: Recipe(UniPCMultistepScheduler),
    SchedulerKind.DDIM: Recipe(DDIMScheduler, {"clip_sample": False}),
    SchedulerKind.LCM: Recipe(
        LCMScheduler,
        {"clip_sample": False, "original_inference_steps": _DISTILLED_STEPS},
        most_steps=_DISTILLED_STEPS,
    ),
    SchedulerKind.TCD: Recipe(
        TCDScheduler,
        {"clip_sample": False, "original_inference_steps": _DISTILLED_STEPS},
        most_steps=_DISTILLED_STEPS,
    ),
    SchedulerKind.EULER_TRAILING: Recipe(EulerDiscreteScheduler, {"timestep_spacing": "trailing"}),
}
"""Every kind; ``recipe.scheduler.from_config(pipe.scheduler.config, **recipe.overrides)``
gives a pipeline of diffusers the same scheduler."""


def most_steps(kind: SchedulerKind) -> int:
    """Returns the most steps that a kind can lay out."""
    return RECIPES[kind].most_steps


class Schedulers:
    """Makes the schedulers of one model."""

    def __init__(self, config: Mapping[str, object], *, device: torch.device) -> None:
        """Keeps what they are made of.

        Args:
            config: The model's own, as its `scheduler_config.json` has it.
            device: Where timesteps lie.
        """
        self._config = dict(config)
        self._device = device
        self._made: dict[SchedulerKind, Scheduler] = {}

    def new(self, kind: SchedulerKind, steps: int) -> Scheduler:
        """Makes a scheduler with exactly `steps` timesteps laid out.

        Args:
            kind: Which.
            steps: 1 to the recipe's `most_steps`.
        """
        if kind not in self._made:
            recipe = RECIPES[kind]
            self._made[kind] = recipe.scheduler.from_config(  # type: ignore[attr-defined]
                self._config, **recipe.overrides
            )
        scheduler = deepcopy(self._made[kind])  # a fifth of the time of making one
        scheduler.set_timesteps(steps, device=self._device)
        _cut(scheduler, steps)
        return scheduler


def _cut(scheduler: Scheduler, steps: int) -> None:
    """Drops a timestep too many.

    Trailing spacing counts down from 1000 in floating point: for 61, 103, 121 and 122 steps
    diffusers lays out one more, at timestep -1, where there is no noise left to take away.
    """
    if len(scheduler.timesteps) == steps:
        return
    scheduler.timesteps = scheduler.timesteps[:steps]
    sigmas: torch.Tensor | None = getattr(scheduler, "sigmas", None)
    if sigmas is not None:
        scheduler.sigmas = torch.cat([sigmas[:steps], sigmas[-1:]])  # type: ignore[attr-defined]
    scheduler.num_inference_steps = steps  # type: ignore[attr-defined]
