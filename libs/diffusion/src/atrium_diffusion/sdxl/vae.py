"""Pictures to latents and back: SDXL's autoencoder, within a budget of memory.

`model.py` calls it in the batcher's thread. What it computes is what diffusers' SDXL
pipelines compute; only a picture that is too large for the budget is decoded in tiles,
which differ slightly where they are blended.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from atrium_diffusion.domain import Pixels
from atrium_diffusion.sdxl.memory import MemoryModel

_LEAST_TILE = 256
"""Pixels of a side; smaller tiles lose sight of the picture."""


class VaeCodec:
    """Encodes and decodes pictures."""

    def __init__(
        self,
        vae: AutoencoderKL,
        *,
        dtype: torch.dtype,
        memory: MemoryModel,
        budget_mib: int | None = None,
    ) -> None:
        """Takes the autoencoder.

        Args:
            vae: On its device; wider than `dtype` where that would overflow.
            dtype: Of latents.
            memory: Estimates what a picture takes.
            budget_mib: Most memory that it may take; ``None`` takes what is free then.
        """
        self._vae = vae
        self._dtype = dtype
        self._memory = memory
        self._budget_mib = budget_mib

    @property
    def channels(self) -> int:
        """Channels of latents."""
        return int(self._vae.config.latent_channels)

    @property
    def scale(self) -> int:
        """Pixels of a side per latent."""
        return int(2 ** (len(self._vae.config.block_out_channels) - 1))

    @torch.no_grad()
    def encode(self, pixels: Pixels, generator: torch.Generator) -> Tensor:
        """Encodes a picture to latents (1, c, h, w), drawn from what the encoder says."""
        height, width, _ = pixels.shape
        image = torch.from_numpy(pixels.astype(np.float32) / 255.0).permute(2, 0, 1)[None]
        image = (2.0 * image - 1.0).to(self._vae.device, self._vae.dtype)
        with self._tiles(height, width, self._memory.budget(self._budget_mib)):
            drawn = self._vae.encode(image).latent_dist.sample(generator)
        latents: Tensor = drawn.to(self._dtype)
        factor: float = self._vae.config.scaling_factor
        shift = self._statistics(latents)
        if shift is None:
            return factor * latents
        mean, deviation = shift
        return (latents - mean) * factor / deviation

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Pixels]:
        """Decodes latents (b, c, h, w): all at once, in slices or in tiles, as they fit."""
        height, width = (self.scale * int(side) for side in latents.shape[-2:])
        budget = self._memory.budget(self._budget_mib)
        together = max(1, budget // self._memory.decode_bytes(height * width))
        pictures: list[Pixels] = []
        with self._tiles(height, width, budget):
            for part in torch.split(latents, together):
                pictures += self._decode(part)
        return pictures

    def _decode(self, latents: Tensor) -> list[Pixels]:
        latents = latents.to(self._vae.dtype)
        factor: float = self._vae.config.scaling_factor
        shift = self._statistics(latents)
        if shift is None:
            latents = latents / factor
        else:
            mean, deviation = shift
            latents = latents * deviation / factor + mean
        image: Tensor = self._vae.decode(latents, return_dict=False)[0]
        image = (image * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float()
        values = (image * 255).round().to(torch.uint8).cpu().numpy()
        return list(values)

    def _statistics(self, latents: Tensor) -> tuple[Tensor, Tensor] | None:
        """Mean and deviation of each channel, for autoencoders that have them."""
        mean, deviation = self._vae.config.latents_mean, self._vae.config.latents_std
        if mean is None or deviation is None:
            return None
        return latents.new_tensor(mean).view(1, -1, 1, 1), latents.new_tensor(deviation).view(
            1, -1, 1, 1
        )

    @contextmanager
    def _tiles(self, height: int, width: int, budget: int) -> Iterator[None]:
        """Works in tiles meanwhile if the whole picture is more than the budget."""
        needed = self._memory.decode_bytes(height * width)
        if needed <= budget or max(height, width) <= _LEAST_TILE:
            yield
            return
        side = _LEAST_TILE
        while self._memory.decode_bytes(4 * side * side) <= budget:
            side *= 2
        self._vae.tile_sample_min_size = side
        self._vae.tile_latent_min_size = side // self.scale
        self._vae.enable_tiling()
        try:
            yield
        finally:
            self._vae.disable_tiling()
