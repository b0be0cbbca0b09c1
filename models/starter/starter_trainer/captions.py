"""The recipe of the captioner: from nothing to a folder that BLIP-2 code loads."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from atrium_diffusion.testing.shapes import Scene, seeded
from starter_trainer import blip2
from starter_trainer.blip2 import Widths
from starter_trainer.captioner import BATCH, Album, Learner, LookingTask, TellingTask
from starter_trainer.dialogue import canonical, exchange, questions
from starter_trainer.drawing import Drawer
from starter_trainer.fit import Budget, Say, fit
from starter_trainer.sights import drawn, rendered

_SEED = 0
_LOOKING_SHARE, _TELLING_SHARE = 0.5, 0.35
"""Of the minutes, where they are given; the rest is for rendering, drawing and saving."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How much is learnt; the defaults take about 25 minutes on one core.

    Attributes:
        widths: Of the network.
        rendered: Scenes that are rendered.
        drawn: Scenes that the picture model draws.
        looking_steps: Of the vision model and the Q-Former.
        telling_steps: Of all of it, with words.
        batch: Pictures of each step.
        minutes: For all of it, instead of the steps.
    """

    widths: Widths = field(default_factory=Widths)
    rendered: int = 12000
    drawn: int = 900
    looking_steps: int = 4200
    telling_steps: int = 1500
    batch: int = BATCH
    minutes: float | None = None

    def budget(self, steps: int, share: float) -> Budget:
        """What a stage may use."""
        seconds = None if self.minutes is None else 60.0 * self.minutes * share
        return Budget(steps=steps, seconds=seconds)


def train(
    recipe: Recipe,
    *,
    studio: Callable[[], AbstractContextManager[Drawer]],
    out: Path,
    work: Path,
    say: Say,
) -> None:
    """Trains the captioner.

    Args:
        recipe: How much is learnt.
        studio: Opens what draws a part of the pictures that it learns from.
        out: Folder for the model; its files are overwritten.
        work: Folder for checkpoints; training that was stopped goes on from there.
        say: Told every few seconds how it goes.

    Raises:
        TrainingError: `work` was begun with another recipe, or the picture model can't be loaded.
    """
    work.mkdir(parents=True, exist_ok=True)
    side = recipe.widths.side
    pictures = drawn(recipe.drawn, side=side, studio=studio, cache=work / "drawn.pt", say=say)
    scenes = rendered(recipe.rendered, side=side)
    album = Album(scenes, pictures, batch=recipe.batch, patch=recipe.widths.patch)

    tokenizer = blip2.make_tokenizer(_corpus(scenes.scenes))
    processor = blip2.processor(recipe.widths, tokenizer)
    torch.manual_seed(_SEED)
    learner = Learner(blip2.network(recipe.widths, tokenizer), width=recipe.widths.width)
    fit(
        LookingTask(learner, album),
        budget=recipe.budget(recipe.looking_steps, _LOOKING_SHARE),
        checkpoint=work / "looking.pt",
        fingerprint=repr(recipe),
        say=say,
    )
    fit(
        TellingTask(learner, album, tokenizer),
        budget=recipe.budget(recipe.telling_steps, _TELLING_SHARE),
        checkpoint=work / "telling.pt",
        fingerprint=repr(recipe),
        say=say,
    )
    blip2.save(out, model=learner.model, processor=processor)
    say(f"saved     {out}")


def _corpus(scenes: Iterable[Scene]) -> Iterator[str]:
    """What the tokenizer learns its pieces from."""
    random = seeded("speech")
    for scene in scenes:
        yield canonical(scene)
        yield from exchange(scene, random)
        for kind in questions(scene):
            yield from (f" {part}" for question in kind for part in question)
