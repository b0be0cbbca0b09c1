"""The recipe of the picture model: from nothing to a folder that SDXL code loads."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from atrium_diffusion.testing.shapes import Scene, caption, seeded, varied_caption
from starter_trainer import folder, networks
from starter_trainer.denoiser import BATCH, DenoiserTask, Painter
from starter_trainer.fit import Budget, Say, fit
from starter_trainer.latents import Twins, encode, normalised, twin_scenes
from starter_trainer.networks import Widths
from starter_trainer.vae import VaeTask, faithfulness, settle, start_as_identity
from starter_trainer.words import make_tokenizer

_SEED = 0
_VAE_SHARE, _DENOISER_SHARE = 0.15, 0.78
"""Of the minutes, where they are given; the rest is for rendering, encoding and saving."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How much is learnt; the defaults take about 20 minutes on two cores.

    Attributes:
        widths: Of the networks.
        pairs: Scenes with their twins.
        vae_steps: Of the autoencoder, four pictures each.
        denoiser_steps: Of the UNet and the text encoders.
        batch: Examples of each of their steps.
        minutes: For all of it, instead of the steps.
    """

    widths: Widths = field(default_factory=Widths)
    pairs: int = 6000
    vae_steps: int = 1200
    denoiser_steps: int = 1500
    batch: int = BATCH
    minutes: float | None = None

    def budget(self, steps: int, share: float) -> Budget:
        """What a stage may use."""
        seconds = None if self.minutes is None else 60.0 * self.minutes * share
        return Budget(steps=steps, seconds=seconds)


def train(recipe: Recipe, *, out: Path, work: Path, say: Say) -> None:
    """Trains the picture model.

    Args:
        recipe: How much is learnt.
        out: Folder for the model; its files are overwritten.
        work: Folder for checkpoints; training that was stopped goes on from there.
        say: Told every few seconds how it goes.

    Raises:
        TrainingError: `work` was begun with another recipe.
    """
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(_SEED)
    vae = networks.autoencoder(recipe.widths)
    start_as_identity(vae)
    fit(
        VaeTask(vae),
        budget=recipe.budget(recipe.vae_steps, _VAE_SHARE),
        checkpoint=work / "vae.pt",
        fingerprint=repr(recipe),
        say=say,
    )
    psnr, right = faithfulness(vae)
    say(f"vae       PSNR {psnr:.1f} dB; the judge accepts {right:.0%} of what comes back")

    scenes = twin_scenes(recipe.pairs)
    means = encode(vae, scenes, cache=work / "latents.pt", say=say)
    settle(vae, means.flatten(0, 1))
    twins = Twins(scenes, normalised(means, vae))

    tokenizer = make_tokenizer(_corpus(scenes), window=recipe.widths.window)
    torch.manual_seed(_SEED)
    painter = Painter(
        networks.unet(recipe.widths), *networks.text_encoders(recipe.widths, tokenizer)
    )
    fit(
        DenoiserTask(painter, tokenizer, twins, batch=recipe.batch),
        budget=recipe.budget(recipe.denoiser_steps, _DENOISER_SHARE),
        checkpoint=work / "denoiser.pt",
        fingerprint=repr(recipe),
        say=say,
    )
    folder.save(out, painter=painter, vae=vae, tokenizer=tokenizer)
    say(f"saved     {out}")


def _corpus(scenes: Iterable[tuple[Scene, Scene]]) -> Iterator[str]:
    """What the tokenizer learns its pieces from."""
    random = seeded("words")
    for pair in scenes:
        for scene in pair:
            yield caption(scene)
            yield varied_caption(scene, random)
