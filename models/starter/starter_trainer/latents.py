"""Between the stages: the scenes that the UNet learns, as latents.

They come in twins: the same shapes in the same places in two colourings. Each is learnt for
itself, and each serves as what the other may look like before it is recoloured.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from atrium_diffusion.testing.shapes import Scene, random_scene, recoloured, render, seeded
from starter_trainer.fit import Say
from starter_trainer.vae import to_tensor

_BATCH = 50


@dataclass(frozen=True, slots=True, eq=False)
class Twins:
    """What the UNet learns from.

    Attributes:
        scenes: Pairs of a scene and its twin.
        latents: Normalised: mean 0, deviation 1. Shape (pairs, 2, 4, h, w).
    """

    scenes: tuple[tuple[Scene, Scene], ...]
    latents: Tensor


def twin_scenes(pairs: int) -> tuple[tuple[Scene, Scene], ...]:
    """Draws scenes and their twins."""
    random = seeded("twins")
    scenes = [random_scene(random) for _ in range(pairs)]
    return tuple((scene, recoloured(scene, random)) for scene in scenes)


@torch.no_grad()
def encode(
    vae: AutoencoderKL, scenes: tuple[tuple[Scene, Scene], ...], *, cache: Path, say: Say
) -> Tensor:
    """Renders and encodes twins, or loads them: latents as they are, (pairs, 2, 4, h, w)."""
    if cache.exists():
        loaded: Tensor = torch.load(cache, weights_only=True)
        return loaded
    side, batches = vae.config.sample_size, []
    for first in range(0, len(scenes), _BATCH):
        batch = scenes[first : first + _BATCH]
        pictures = to_tensor(
            render(scene, seeded(f"twin {first + place}"), side=side)
            for place, pair in enumerate(batch)
            for scene in pair
        )
        means = vae.encode(pictures).latent_dist.mean
        batches.append(means.unflatten(0, (len(batch), 2)))
        if first % (20 * _BATCH) == 0:
            say(f"latents   {first / len(scenes):4.0%}")
    latents = torch.cat(batches)
    draft = cache.with_suffix(".part")
    torch.save(latents, draft)
    draft.replace(cache)
    return latents


def normalised(latents: Tensor, vae: AutoencoderKL) -> Tensor:
    """Latents as the UNet sees them; `vae` was settled on them."""
    mean, deviation = (
        torch.tensor(values)[:, None, None]
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return (latents - mean) / deviation
