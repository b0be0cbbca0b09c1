"""What the harness asks of a service: its servicer, its engine, its estimates.

`server.py` and the interceptors depend on these ports and on no service.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import grpc.aio
from google.protobuf.message import Message

from atrium_common.domain import Capability, ModelInfo, Usage

Context = grpc.aio.ServicerContext[Any, Any]
"""What grpc hands to each handler; grpc's own types leave the messages open."""


@dataclass(frozen=True, slots=True)
class WorkEstimate:
    """Upper bound of what one call may consume; what admission reserves.

    Attributes:
        capability: Capability that the call uses.
        model: Catalogue id, resolved from any alias.
        usage: The bound, unit by unit. A call that exceeds it grows its reservation by
            the same amount again, so an open-ended call may state a first part.
    """

    capability: Capability
    model: str
    usage: Usage


class Servicer(Protocol):
    """One gRPC service over an engine."""

    service_name: str
    """Full proto name, e.g. ``"atrium.llm.v1.TextGenerationService"``."""

    def register(self, server: grpc.aio.Server) -> None:
        """Adds its handlers to `server`."""
        ...

    def estimate(self, method: str, request: Message) -> WorkEstimate | None:
        """Bounds what a call may consume.

        Args:
            method: Full path, e.g. ``"/atrium.llm.v1.TextGenerationService/EmbedText"``.
            request: The request, or the first one of a stream.

        Returns:
            The bound, or ``None`` for a method that costs nothing.

        Raises:
            AtriumError: The request can't be served, e.g. its model is unknown.
        """
        ...


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
