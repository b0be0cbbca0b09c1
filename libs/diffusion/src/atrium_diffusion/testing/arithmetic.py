"""A diffusion model of plain arithmetic: tests of the batcher count its calls.

It only adds and multiplies, element by element, so that a picture's bytes depend neither
on its company nor on the machine.
"""

import asyncio
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atrium_common.errors import InvalidArgument
from atrium_diffusion.domain import AppliedLora, Pixels, SchedulerKind
from atrium_diffusion.model import Conditioning, Scheduler

LONGEST_PROMPT = 200
"""Characters that the model reads."""


class ArithmeticScheduler:
    """Goes halfway to the prediction at every step; remembers the last prediction."""

    order = 1
    init_noise_sigma = 1.0

    def __init__(self, steps: int, *, stochastic: bool) -> None:
        """Lays out the timesteps; a stochastic one adds noise at every step."""
        self._stochastic = stochastic
        self._last: Tensor | None = None
        self.timesteps = torch.empty(0)
        self.set_timesteps(steps)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Lays out the timesteps."""
        self.timesteps = torch.linspace(999, 1, num_inference_steps, device=device)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Forgets the past; nothing else depends on it."""
        self._last = None

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor:
        """Returns the sample as it is."""
        return sample

    def add_noise(self, original: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Mixes by the timestep."""
        share = timesteps[0] / 1000
        return original * (1 - share) + noise * share

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: torch.Generator | None = None,
        **more: Any,
    ) -> tuple[Tensor]:
        """Takes a step."""
        last = model_output if self._last is None else self._last
        self._last = model_output
        result = sample * 0.5 + model_output * 0.375 + last * 0.125
        if self._stochastic:
            result = result + 0.125 * torch.randn(sample.shape, generator=generator)
        return (result,)


class Gate:
    """Holds each UNet call until the test lets it pass."""

    def __init__(self) -> None:
        """Makes a gate that is closed."""
        self._arrivals = threading.Semaphore(0)
        self._permits = threading.Semaphore(0)

    def wait(self) -> None:
        """Waits for permission; the model calls it."""
        self._arrivals.release()
        self._permits.acquire()

    async def reached(self) -> None:
        """Waits until another call stands before the gate."""
        arrived = await asyncio.to_thread(self._arrivals.acquire, timeout=60)
        if not arrived:
            raise TimeoutError("no UNet call came")

    def open(self, calls: int = 1) -> None:
        """Lets so many calls pass."""
        self._permits.release(calls)

    async def step(self) -> None:
        """Lets the call that stands before the gate pass, and waits for the next one."""
        self.open()
        await self.reached()


@dataclass(frozen=True, slots=True)
class Call:
    """One UNet call.

    Attributes:
        prompts: Of every row; ``""`` for rows without the prompt.
        height: Pixels.
        width: Pixels.
        loras: Adapters that acted.
    """

    prompts: tuple[str, ...]
    height: int
    width: int
    loras: tuple[AppliedLora, ...]


class ArithmeticModel:
    """Meets `DiffusionModel`.

    Attributes:
        calls: UNet calls that it was asked for, also those that failed.
        gate: Where each of them waits, if set.
        room: Latents (rows times height times width) that one call has memory for.
        raises: What a call with such a prompt in it raises.
        overflows: Prompts that are predicted to be not a number.
        decoded: Pictures in each call of `decode` that went well.
        decode_room: Pictures that one call of `decode` has memory for.
    """

    device = torch.device("cpu")
    dtype = torch.float32
    latent_channels = 4
    scale = 8

    def __init__(self) -> None:
        """Makes a model without limits and failures."""
        self.calls: list[Call] = []
        self.gate: Gate | None = None
        self.room: int | None = None
        self.raises: dict[str, Exception] = {}
        self.overflows: set[str] = set()
        self.decoded: list[int] = []
        self.decode_room: int | None = None
        self._prompts: dict[float, str] = {}
        self._loras: tuple[AppliedLora, ...] = ()

    def new_scheduler(self, kind: SchedulerKind, steps: int) -> Scheduler:
        """Makes a scheduler; ancestral Euler is the stochastic one."""
        stochastic = kind is SchedulerKind.EULER_ANCESTRAL
        return ArithmeticScheduler(steps, stochastic=stochastic)

    def encode_prompt(
        self, prompt: str, *, loras: Sequence[AppliedLora], truncate: bool
    ) -> Conditioning:
        """Makes a number of it, between 0 and 1."""
        if len(prompt) > LONGEST_PROMPT and not truncate:
            raise InvalidArgument("The prompt is too long.", field="prompt")
        number = (zlib.crc32(prompt.encode()) % 65536) / 65536
        self._prompts[number] = prompt
        return Conditioning(torch.full((1, 1, 1), number), torch.full((1, 1), number))

    def adapt(self, loras: Sequence[AppliedLora]) -> None:
        """Notes them; each adds its scale to what is predicted."""
        self._loras = tuple(loras)

    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditionings: Sequence[Conditioning],
        *,
        height: int,
        width: int,
    ) -> Tensor:
        """Predicts from the row's own latents, timestep and prompt alone."""
        numbers = torch.cat([one.pooled for one in conditionings]).view(-1, 1, 1, 1)
        prompts = tuple(self._prompts[float(one.pooled)] for one in conditionings)
        self.calls.append(Call(prompts, height, width, self._loras))
        if (gate := self.gate) is not None:
            gate.wait()
        rows, _, *sides = latents.shape
        if self.room is not None and rows * sides[0] * sides[1] > self.room:
            raise torch.OutOfMemoryError("the model's memory is out")
        for prompt in prompts:
            if prompt in self.raises:
                raise self.raises[prompt]
        scale = sum(lora.scale for lora in self._loras)
        output = latents * 0.25 + numbers + timesteps.view(-1, 1, 1, 1) / 4096 + scale
        broken = torch.tensor([prompt in self.overflows for prompt in prompts])
        return output.masked_fill(broken.view(-1, 1, 1, 1), float("nan"))

    def encode_image(self, pixels: Pixels, generator: torch.Generator) -> Tensor:
        """Takes every eighth pixel, with a little noise."""
        values = torch.from_numpy(pixels[:: self.scale, :: self.scale].astype(np.float32))
        colours = values.permute(2, 0, 1)[None] / 128 - 1
        clean = torch.cat([colours, colours.mean(1, keepdim=True)], dim=1)
        return clean + torch.randn(clean.shape, generator=generator) / 128

    def decode(self, latents: Tensor) -> list[Pixels]:
        """Shows the first three channels as colours, each latent as a square."""
        if self.decode_room is not None and latents.shape[0] > self.decode_room:
            raise torch.OutOfMemoryError("the decoder's memory is out")
        self.decoded.append(latents.shape[0])
        return [self._shown(one, self.scale) for one in latents]

    def preview(self, latents: Tensor, max_side: int) -> Pixels:
        """Shows a latent as a pixel."""
        return self._shown(latents[0], 1)[:max_side, :max_side]

    @staticmethod
    def _shown(latents: Tensor, scale: int) -> Pixels:
        colours = (latents[:3].permute(1, 2, 0) * 64 + 128).clamp(0, 255).round()
        pixels: Pixels = colours.to(torch.uint8).numpy()
        return pixels.repeat(scale, axis=0).repeat(scale, axis=1)
