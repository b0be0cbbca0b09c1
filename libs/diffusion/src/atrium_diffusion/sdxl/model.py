"""SDXL as the denoiser sees it: diffusers' components, put together without a pipeline.

`engines/diffusers.py` makes one for each set of weights; the batcher's thread uses it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from atrium_diffusion.domain import AppliedLora, Pixels, SchedulerKind
from atrium_diffusion.model import Conditioning, Scheduler
from atrium_diffusion.sdxl.loading import Components
from atrium_diffusion.sdxl.memory import MemoryModel
from atrium_diffusion.sdxl.preview import LatentPreview
from atrium_diffusion.sdxl.schedulers import Schedulers
from atrium_diffusion.sdxl.text import PromptEncoder
from atrium_diffusion.sdxl.vae import VaeCodec


class Adapters(Protocol):
    """What can change the weights for a request; `lora.LoraSet` meets it."""

    def activate(self, loras: Sequence[AppliedLora]) -> None:
        """Makes exactly these act on the UNet and the text encoders."""
        ...


class SdxlModel:
    """Meets `DiffusionModel`."""

    def __init__(
        self,
        components: Components,
        *,
        device: torch.device,
        dtype: torch.dtype,
        memory: MemoryModel,
        memory_budget_mib: int | None = None,
        adapters: Adapters | None = None,
        cached_prompts: int = 128,
    ) -> None:
        """Takes loaded components, and fits the previews.

        Args:
            components: On `device`, in `dtype`.
            device: Where it runs.
            dtype: Of the UNet and the text encoders.
            memory: Estimates what decoding takes.
            memory_budget_mib: Most that decoding may take; ``None`` takes what is free.
            adapters: What `adapt` applies; without, it takes none.
            cached_prompts: Prompts whose encodings are kept.
        """
        self.device = device
        self.dtype = dtype
        self._unet = components.unet
        self._adapters = adapters
        self._acting: tuple[AppliedLora, ...] = ()
        self._text = PromptEncoder(
            components, device=device, adapted=self._adapted, cached=cached_prompts
        )
        self._schedulers = Schedulers(components.scheduler_config, device=device)
        self._codec = VaeCodec(
            components.vae, dtype=dtype, memory=memory, budget_mib=memory_budget_mib
        )
        if device.type == "cuda":  # its convolutions are fastest in this layout
            components.unet.to(memory_format=torch.channels_last)
            components.vae.to(memory_format=torch.channels_last)
        self.latent_channels = self._codec.channels
        self.scale = self._codec.scale
        self._preview = LatentPreview.fit(self._codec)

    def new_scheduler(self, kind: SchedulerKind, steps: int) -> Scheduler:
        """Makes a scheduler with its timesteps laid out."""
        return self._schedulers.new(kind, steps)

    def check_prompt(self, prompt: str, *, field: str) -> None:
        """Refuses a prompt that is longer than the text window. May be called in any thread.

        Raises:
            InvalidArgument: It is; `field` names it.
        """
        self._text.check(prompt, field=field)

    def encode_prompt(
        self, prompt: str, *, loras: Sequence[AppliedLora], truncate: bool
    ) -> Conditioning:
        """Encodes a prompt; what `adapt` put in force stays in force."""
        return self._text.encode(prompt, loras=tuple(loras), truncate=truncate)

    def adapt(self, loras: Sequence[AppliedLora]) -> None:
        """Makes exactly these adapters act."""
        wanted = tuple(loras)
        if wanted == self._acting:
            return
        if self._adapters is None:
            raise ValueError("this model was loaded without adapters")
        self._adapters.activate(wanted)
        self._acting = wanted

    @torch.no_grad()
    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditionings: Sequence[Conditioning],
        *,
        height: int,
        width: int,
    ) -> Tensor:
        """Runs the UNet once."""
        # SDXL was trained with each picture's size before and after cropping, and where it
        # was cropped: here the whole of a picture of this size.
        sizes = latents.new_tensor([height, width, 0, 0, height, width], dtype=self.dtype)
        noise: Tensor = self._unet(
            latents.to(self.dtype),
            timesteps,
            encoder_hidden_states=torch.cat([one.embeds for one in conditionings]),
            added_cond_kwargs={
                "text_embeds": torch.cat([one.pooled for one in conditionings]),
                "time_ids": sizes.expand(len(conditionings), -1),
            },
            return_dict=False,
        )[0]
        return noise

    def encode_image(self, pixels: Pixels, generator: torch.Generator) -> Tensor:
        """Encodes a picture to latents."""
        return self._codec.encode(pixels, generator)

    def decode(self, latents: Tensor) -> Sequence[Pixels]:
        """Decodes finished latents."""
        return self._codec.decode(latents)

    def preview(self, latents: Tensor, max_side: int) -> Pixels:
        """Projects latents to a small picture."""
        return self._preview(latents, max_side)

    @contextmanager
    def _adapted(self, loras: Sequence[AppliedLora]) -> Iterator[None]:
        """Puts adapters in force for as long as a prompt is encoded."""
        before = self._acting
        self.adapt(loras)
        try:
            yield
        finally:
            self.adapt(before)
