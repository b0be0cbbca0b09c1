"""What the denoiser asks of a model: its parts, without a pipeline around them.

`sdxl/` meets it with diffusers' SDXL; tests meet it with arithmetic. Every method but
`size` is called in one thread, the batcher's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from atrium_diffusion.domain import AppliedLora, Pixels, SchedulerKind


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """What a prompt says to the UNet.

    Attributes:
        embeds: Hidden states of both text encoders, shape (1, tokens, width).
        pooled: Pooled embedding of the second one, shape (1, width).
    """

    embeds: Tensor
    pooled: Tensor


class Scheduler(Protocol):
    """The part of a diffusers scheduler that the denoiser uses. One object per picture."""

    order: int
    init_noise_sigma: Any
    timesteps: Tensor

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Lays out the timesteps."""
        ...

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Starts in the midst, for edits."""
        ...

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor:
        """Prepares the UNet's input."""
        ...

    def add_noise(self, original: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noises clean latents to the level of `timesteps`."""
        ...

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **more: Any) -> Any:
        """Takes a step; element 0 of the result (`return_dict=False`) is the new sample."""
        ...


class DiffusionModel(Protocol):
    """One loaded model."""

    device: torch.device
    dtype: torch.dtype
    """Of the UNet and the text encoders."""
    latent_channels: int
    scale: int
    """Pixels of a side per latent, e.g. 8."""

    def new_scheduler(self, kind: SchedulerKind, steps: int) -> Scheduler:
        """Makes a scheduler with its timesteps laid out."""
        ...

    def encode_prompt(
        self, prompt: str, *, loras: Sequence[AppliedLora], truncate: bool
    ) -> Conditioning:
        """Encodes a prompt; repeated ones come from a cache.

        Raises:
            InvalidArgument: It is longer than the text window and `truncate` is false.
        """
        ...

    def adapt(self, loras: Sequence[AppliedLora]) -> None:
        """Makes exactly these adapters act on `predict` from now on."""
        ...

    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditionings: Sequence[Conditioning],
        *,
        height: int,
        width: int,
    ) -> Tensor:
        """Runs the UNet once: `latents` (b, c, h, w), `timesteps` (b,), b conditionings.

        Args:
            latents: After `Scheduler.scale_model_input`.
            timesteps: One per sample.
            conditionings: One per sample.
            height: Of the pictures, in pixels (SDXL is told the size).
            width: Of the pictures, in pixels.
        """
        ...

    def encode_image(self, pixels: Pixels, generator: torch.Generator) -> Tensor:
        """Encodes a picture to latents (1, c, h, w), sampled as diffusers' pipelines do."""
        ...

    def decode(self, latents: Tensor) -> Sequence[Pixels]:
        """Decodes finished latents (b, c, h, w); slices or tiles to keep its memory budget."""
        ...

    def preview(self, latents: Tensor, max_side: int) -> Pixels:
        """Projects latents (1, c, h, w) to a small picture without the decoder."""
        ...
