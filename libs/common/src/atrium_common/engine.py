"""What the harness asks of every service's engine.

A module of its own, because an engine is plain Python: these ports know nothing of gRPC.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from atrium_common.domain import ModelInfo
from atrium_common.telemetry.tally import Tally


class Engine(Protocol):
    """The part of every service's engine that the harness uses."""

    name: str

    async def load(self) -> None:
        """Loads every model that is to be ready at start."""
        ...

    async def close(self) -> None:
        """Stops running work and frees memory. May be called twice."""
        ...

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order, with their present state."""
        ...

    async def verify(self, model: str) -> None:
        """Runs a small pass; raises if the model can't answer."""
        ...


@runtime_checkable
class LoadsModels(Protocol):
    """An engine that can bring a single model into memory while it serves."""

    async def load_model(self, model: str) -> None:
        """Loads `model` (a catalogue id); returns when it is ready."""
        ...


@runtime_checkable
class UnloadsModels(Protocol):
    """An engine that can drop a single model from memory while it serves."""

    async def unload_model(self, model: str) -> None:
        """Unloads `model` (a catalogue id); `Conflict` while requests run on it."""
        ...


@runtime_checkable
class HasBatches(Protocol):
    """An engine that counts how many rows share its models' steps; /metrics shows it."""

    @property
    def batches(self) -> Mapping[str, Tally]:
        """Rows of each step so far, by catalogue id."""
        ...
