"""Both stages of the captioner: it learns to look, then to tell.

BLIP-2 aligns its Q-Former with texts before a language model reads it. Here the scenes are
known, so the first stage names them directly: each query is asked for one attribute of the
scene, each patch of the picture for the shape on it. The second stage adds the language model.
"""

from random import Random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Blip2ForConditionalGeneration, GPT2Tokenizer

from atrium_diffusion.testing.shapes import (
    COLOURS,
    COUNTS,
    GREY,
    GREY_RGB,
    PALETTE,
    SHAPES,
    Scene,
    Size,
)
from starter_trainer.blip2 import IMAGE
from starter_trainer.dialogue import Exchange, exchange
from starter_trainer.fit import Adam, step_chance
from starter_trainer.sights import Sights

BATCH = 32
_LOOKING = Adam(peak=1.2e-3, floor=2e-5, warm_up=100, betas=(0.9, 0.98), weight_decay=1e-2)
_TELLING = Adam(peak=1.0e-3, floor=1e-5, warm_up=100, betas=(0.9, 0.98), weight_decay=1e-2)
_DRAWN_SHARE = 0.3
"""Of a batch; the other pictures are rendered."""
_SHIFT = 3
"""Pixels by which a picture is moved at most, either way."""
_MOST_NOISE = 8.0
_TINT = 6.0
"""Levels."""
_FAR = 60.0
"""Levels, in RGB, between a background and what is on it."""
_COVERED = 0.25
"""Share of a patch from which on it belongs to a figure."""
_ATTRIBUTES_WHILE_TELLING = 0.5
_BACKGROUNDS = (*COLOURS, GREY)
_SIZES = tuple(Size)
_ATTRIBUTES = tuple(map(len, (COUNTS, COLOURS, SHAPES, _BACKGROUNDS, _SIZES, COLOURS, SHAPES)))
"""How many values each has: count, first figure, background, size, last figure."""


def _attributes(scene: Scene) -> list[int]:
    """The scene's values, in the order of `_ATTRIBUTES`."""
    first, last = scene.figures[0], scene.figures[-1]
    return [
        len(scene.figures) - 1,
        COLOURS.index(first.colour),
        SHAPES.index(first.shape),
        _BACKGROUNDS.index(scene.background_seen),
        _SIZES.index(scene.size),
        COLOURS.index(last.colour),
        SHAPES.index(last.shape),
    ]


class Learner(nn.Module):
    """The network, and what asks it for attributes while it learns."""

    def __init__(self, model: Blip2ForConditionalGeneration, *, width: int) -> None:
        super().__init__()
        self.model = model
        self.attributes = nn.ModuleList([nn.Linear(width, values) for values in _ATTRIBUTES])
        self.shapes = nn.Linear(width, 1 + len(SHAPES))

    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """What the vision model makes of pictures, (b, 1 + patches, w), and the queries of it."""
        seen = self.model.vision_model(pixel_values=pixels).last_hidden_state
        queries = self.model.query_tokens.expand(len(pixels), -1, -1)
        summed = self.model.qformer(query_embeds=queries, encoder_hidden_states=seen)
        return seen, summed.last_hidden_state


class Batch(NamedTuple):
    """Pictures of a step, and what is known about them.

    Attributes:
        scenes: What they show.
        pixels: -1 to 1, shape (b, 3, side, side).
        attributes: Shape (b, attributes).
        shapes: Of each patch: 0 for none, else one more than its index; shape (b, patches).
    """

    scenes: list[Scene]
    pixels: Tensor
    attributes: Tensor
    shapes: Tensor


class Album:
    """Draws batches from all sights; no picture is twice the same."""

    def __init__(self, rendered: Sights, drawn: Sights, *, batch: int, patch: int) -> None:
        self._parts = (rendered, drawn)
        self._batch, self._patch = batch, patch
        self._levels = torch.tensor([*PALETTE.values(), GREY_RGB], dtype=torch.float32)

    def draw(self, random: Random, generator: torch.Generator) -> Batch:
        """A batch of both kinds."""
        scenes, pixels = [], []
        for _ in range(self._batch):
            part = self._parts[random.random() < _DRAWN_SHARE]
            part = part if part.scenes else self._parts[0]
            place = random.randrange(len(part.scenes))
            scenes.append(part.scenes[place])
            pixels.append(_moved(part.pixels[place].float(), part.scenes[place], random))
        levels = torch.stack(pixels)
        attributes = torch.tensor([_attributes(scene) for scene in scenes])
        shapes = self._shapes(levels, attributes)
        strength = _MOST_NOISE * torch.rand(self._batch, 1, 1, 1, generator=generator)
        noise = strength * torch.randn(levels.shape, generator=generator)
        tint = _TINT * (2 * torch.rand(self._batch, 3, 1, 1, generator=generator) - 1)
        pixels_seen = (levels + noise + tint).clamp(0, 255) / 127.5 - 1
        return Batch(scenes, pixels_seen, attributes, shapes)

    def _shapes(self, levels: Tensor, attributes: Tensor) -> Tensor:
        """The shape on each patch: where a picture is far from its background, a figure is."""
        behind = self._levels[attributes[:, 3]][:, :, None, None]
        covered = ((levels - behind).square().sum(1) > _FAR**2).float()
        shares = F.avg_pool2d(covered, self._patch)
        columns = torch.arange(shares.shape[-1], dtype=torch.float32)
        total = shares.sum((1, 2)).clamp_min(1e-6)
        middle = (shares.sum(1) * columns).sum(1) / total
        right = columns[None, None, :] > middle[:, None, None]
        first, last = (attributes[:, at][:, None, None] + 1 for at in (2, 6))
        found = torch.where(right, last, first) * (shares >= _COVERED)
        return found.flatten(1)


def _moved(levels: Tensor, scene: Scene, random: Random) -> Tensor:
    """Moved a little; mirrored, where that leaves left and right as they are said."""
    padded = F.pad(levels[None], (_SHIFT,) * 4, mode="replicate")[0]
    down, right = (random.randint(0, 2 * _SHIFT) for _ in range(2))
    height, width = levels.shape[-2:]
    moved = padded[:, down : down + height, right : right + width]
    mirrored = len(set(scene.figures)) == 1 and random.random() < 0.5
    return moved.flip(-1) if mirrored else moved


def _attribute_loss(learner: Learner, seen: Tensor, summed: Tensor, batch: Batch) -> Tensor:
    """How badly queries and patches know what they are asked for."""
    named = [
        F.cross_entropy(head(summed[:, at]), batch.attributes[:, at])
        for at, head in enumerate(learner.attributes)
    ]
    patches = learner.shapes(seen[:, 1:]).flatten(0, 1)
    return torch.stack(named).mean() + F.cross_entropy(patches, batch.shapes.flatten())


class LookingTask:
    """Stage one: the vision model and the Q-Former, without a word."""

    name = "looking"
    adam = _LOOKING

    def __init__(self, learner: Learner, album: Album) -> None:
        self.module, self._learner, self._album = learner, learner, album

    def loss(self, step: int) -> Tensor:
        """The loss of attributes and patches."""
        batch = self._album.draw(*step_chance(self.name, step))
        return _attribute_loss(self._learner, *self._learner.look(batch.pixels), batch)


class TellingTask:
    """Stage two: all of it, with the language model."""

    name = "telling"
    adam = _TELLING

    def __init__(self, learner: Learner, album: Album, tokenizer: GPT2Tokenizer) -> None:
        self.module, self._learner, self._album = learner, learner, album
        self._tokenizer = tokenizer
        self._picture = [tokenizer.convert_tokens_to_ids(IMAGE)]
        self._picture *= learner.model.config.num_query_tokens

    def loss(self, step: int) -> Tensor:
        """Cross-entropy of what is to be said, and a share of stage one's loss."""
        random, generator = step_chance(self.name, step)
        batch = self._album.draw(random, generator)
        tokens, targets = self.texts([exchange(scene, random) for scene in batch.scenes])
        said = self._learner.model(
            pixel_values=batch.pixels,
            input_ids=tokens,
            attention_mask=(tokens != self._tokenizer.pad_token_id).long(),
            labels=targets,
        )
        seen = said.vision_outputs.last_hidden_state
        summed = said.qformer_outputs.last_hidden_state
        known = _attribute_loss(self._learner, seen, summed, batch)
        loss: Tensor = said.loss + _ATTRIBUTES_WHILE_TELLING * known
        return loss

    def texts(self, exchanges: list[Exchange]) -> tuple[Tensor, Tensor]:
        """Token ids and targets (-100 where nothing is to be said), padded; shape (b, length)."""
        rows, targets = [], []
        for prompt, answer in exchanges:
            read = [*self._picture, *self._tokenizer(prompt)["input_ids"]]
            told = self._tokenizer(answer, add_special_tokens=False)["input_ids"]
            told = [*told, self._tokenizer.eos_token_id]
            rows.append(torch.tensor(read + told))
            targets.append(torch.tensor([-100] * len(read) + told))
        pad = nn.utils.rnn.pad_sequence
        padding = float(self._tokenizer.pad_token_id)
        return (
            pad(rows, batch_first=True, padding_value=padding),
            pad(targets, batch_first=True, padding_value=-100.0),
        )
