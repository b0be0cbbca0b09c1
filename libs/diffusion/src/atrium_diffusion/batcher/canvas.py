"""What the device holds of one picture while it is denoised. `denoiser.py` makes it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from atrium_diffusion.domain import AppliedLora, PicturePlan
from atrium_diffusion.model import Conditioning, Scheduler


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What holds the part of a source in place that a mask does not free.

    Attributes:
        mask: 1 where latents are drawn anew, else 0; shape (1, 1, h, w).
        latents: Of the source, without noise; shape (1, c, h, w).
        noise: Of the same shape; what the source is noised with at every step.
    """

    mask: Tensor
    latents: Tensor
    noise: Tensor


@dataclass(slots=True, eq=False, kw_only=True)
class Canvas:
    """State of one picture; no two share any of it but cached conditionings.

    Attributes:
        plan: The picture.
        loras: Adapters that act on its UNet calls.
        latents: Where it has got to, shape (1, c, h, w).
        scheduler: Its own, for it remembers earlier steps.
        timesteps: Of the steps to take, on the CPU: schedulers index tables with them,
            and with an index that lies on a GPU each time would wait for it.
        levels: The same as numbers; the UNet's input.
        conditioning: What the prompt says.
        negative: What the negative prompt says; ``None`` without guidance.
        guidance_scale: How far from `negative` towards `conditioning`.
        generator: Source of all its noise; on the CPU, so that every device draws alike.
        step_options: What its scheduler's `step` takes beside the usual.
        kept: The source under the mask, if there is one.
        position: Steps taken.
    """

    plan: PicturePlan
    loras: tuple[AppliedLora, ...]
    latents: Tensor
    scheduler: Scheduler
    timesteps: Tensor
    levels: list[float]
    conditioning: Conditioning
    negative: Conditioning | None
    guidance_scale: float
    generator: torch.Generator
    step_options: Mapping[str, object]
    kept: Kept | None = None
    position: int = 0

    @property
    def timestep(self) -> Tensor:
        """The present one, of no dimension."""
        return self.timesteps[self.position]

    @property
    def finished(self) -> bool:
        """True once all steps are taken."""
        return self.position >= len(self.levels)
