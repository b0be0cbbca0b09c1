"""The training loop that every stage runs: learning rate, average, budget, checkpoints.

A stage brings its loss as a `Task`. All chance comes from a seed and the number of the step, so
training that is stopped and resumed goes on as if it had never stopped.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

import torch
from torch import Tensor, nn

from atrium_diffusion.testing.shapes import seeded
from starter_trainer.errors import TrainingError

Clock = Callable[[], float]
"""Seconds, monotonic."""
Say = Callable[[str], None]
"""Takes one line for whoever trains."""

_SAVE_EVERY_SECONDS = 60.0
_SAY_EVERY_SECONDS = 10.0
_MOST_GRADIENT = 1.0
_AVERAGE_DECAY = 0.998
_LOSS_DECAY = 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam:
    """How a stage's weights move: AdamW, warmed up, then falling to `floor`.

    Attributes:
        peak: Highest learning rate.
        floor: What the learning rate falls to.
        warm_up: Steps until the peak.
        betas: Decay of the gradients' mean and of their squares'.
        weight_decay: As AdamW takes it.
    """

    peak: float
    floor: float
    warm_up: int
    betas: tuple[float, float]
    weight_decay: float

    def rate(self, step: int, progress: float) -> float:
        """The learning rate of a step; `progress` is 0 to 1."""
        warmth = min(1.0, (step + 1) / self.warm_up)
        fall: float = (1.0 - min(progress, 1.0)) ** 0.7
        return self.floor + self.peak * warmth * fall


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When a stage ends: after `steps`, or after `seconds` of training where they are given."""

    steps: int
    seconds: float | None = None

    def progress(self, step: int, seconds: float) -> float:
        """How much of it is used; 1 or more is all."""
        return step / self.steps if self.seconds is None else seconds / self.seconds


class Task(Protocol):
    """What a stage teaches."""

    name: str
    adam: Adam

    @property
    def module(self) -> nn.Module:
        """Everything that is trained."""
        ...

    def loss(self, step: int) -> Tensor:
        """The loss of a step's batch, a scalar; chance depends on `step` alone."""
        ...


@dataclass(slots=True)
class _State:
    """Where a stage stands."""

    step: int
    seconds: float
    loss: float


def step_chance(name: str, step: int) -> tuple[Random, torch.Generator]:
    """Chance for one step of a stage, the same at each run: Python's and torch's."""
    random = seeded(f"{name} {step}")
    return random, torch.Generator().manual_seed(random.getrandbits(62))


class _Trainer:
    """One stage's weights, their running average and their optimizer."""

    def __init__(self, task: Task, checkpoint: Path, fingerprint: str) -> None:
        self._task, self._checkpoint, self._fingerprint = task, checkpoint, fingerprint
        self._weights = list(task.module.parameters())
        self._average = [weight.detach().clone() for weight in self._weights]
        adam = task.adam
        self._optimizer = torch.optim.AdamW(
            self._weights, adam.peak, betas=adam.betas, weight_decay=adam.weight_decay
        )
        self.state = _State(step=0, seconds=0.0, loss=float("nan"))

    def step(self, progress: float) -> float:
        """Takes one step; gives the learning rate."""
        state = self.state
        rate = self._task.adam.rate(state.step, progress)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss = self._task.loss(state.step)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._weights, _MOST_GRADIENT)
        self._optimizer.step()
        state.step += 1
        decay = min(_AVERAGE_DECAY, (1 + state.step) / (10 + state.step))
        with torch.no_grad():
            for average, weight in zip(self._average, self._weights, strict=True):
                average.lerp_(weight, 1.0 - decay)
        value = loss.item()
        first = state.step == 1
        state.loss = value if first else _LOSS_DECAY * state.loss + (1 - _LOSS_DECAY) * value
        return rate

    def save(self) -> None:
        """Writes the checkpoint, whole or not at all."""
        written = {
            "fingerprint": self._fingerprint,
            "step": self.state.step,
            "seconds": self.state.seconds,
            "loss": self.state.loss,
            "weights": [weight.detach() for weight in self._weights],
            "average": self._average,
            "optimizer": self._optimizer.state_dict(),
        }
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        draft = self._checkpoint.with_suffix(".part")
        torch.save(written, draft)
        draft.replace(self._checkpoint)

    def resume(self) -> None:
        """Goes on from the checkpoint, if there is one.

        Raises:
            TrainingError: It was begun with other settings.
        """
        if not self._checkpoint.exists():
            return
        saved = torch.load(self._checkpoint, weights_only=True)
        if saved["fingerprint"] != self._fingerprint:
            raise TrainingError(
                f"{self._checkpoint} was begun with other settings; choose another --work"
            )
        _copy(saved["weights"], self._weights)
        _copy(saved["average"], self._average)
        self._optimizer.load_state_dict(saved["optimizer"])
        self.state = _State(step=saved["step"], seconds=saved["seconds"], loss=saved["loss"])

    def finish(self) -> None:
        """Puts the average in the weights' place: it draws better than any single step's."""
        _copy(self._average, self._weights)
        self._task.module.eval().requires_grad_(False)


@torch.no_grad()
def _copy(sources: list[Tensor], targets: list[Tensor] | list[nn.Parameter]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)


def fit(
    task: Task,
    *,
    budget: Budget,
    checkpoint: Path,
    fingerprint: str,
    say: Say,
    clock: Clock = time.monotonic,
) -> None:
    """Trains a stage to the end of its budget; a finished one is only loaded.

    Args:
        task: What is taught. Its module ends in evaluation mode with averaged weights.
        budget: When it ends.
        checkpoint: Its file, written every minute and at the end.
        fingerprint: Of the settings; a checkpoint of others is refused.
        say: Told the loss and the time left every few seconds.
        clock: Measures the budget and the pauses between lines and files.

    Raises:
        TrainingError: The checkpoint was begun with other settings.
    """
    trainer = _Trainer(task, checkpoint, fingerprint)
    trainer.resume()
    state = trainer.state
    task.module.train().requires_grad_(True)
    said = saved = last = clock()
    for progress in _until_spent(budget, state):
        rate = trainer.step(progress)
        now = clock()
        state.seconds += now - last
        last = now
        if now - said >= _SAY_EVERY_SECONDS:
            said = now
            say(_line(task.name, state, rate, budget))
        if now - saved >= _SAVE_EVERY_SECONDS:
            saved = now
            trainer.save()
    trainer.save()
    trainer.finish()
    say(f"{task.name:9} done: {state.step} steps, loss {state.loss:.4f}, {_clock(state.seconds)}")


def _until_spent(budget: Budget, state: _State) -> Iterator[float]:
    while (progress := budget.progress(state.step, state.seconds)) < 1.0:
        yield progress


def _line(name: str, state: _State, rate: float, budget: Budget) -> str:
    progress = budget.progress(state.step, state.seconds)
    left = state.seconds * (1.0 - progress) / progress
    return (
        f"{name:9} {progress:4.0%}  step {state.step:5}  loss {state.loss:.4f}  "
        f"rate {rate:.5f}  {_clock(left)} left"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{rest:02}"
