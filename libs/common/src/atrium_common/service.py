"""What the harness asks of a service: its servicer and its estimates (engine.py: its engine).

`server.py` and the interceptors depend on these ports and on no service.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import grpc.aio
from google.protobuf.message import Message

from atrium_common.domain import Capability, Usage
from atrium_common.telemetry.tally import Tally

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
        others: Other models that it uses, by catalogue id.
    """

    capability: Capability
    model: str
    usage: Usage
    others: tuple[str, ...] = ()


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


class Queue(Protocol):
    """A work queue as metrics see it."""

    @property
    def depth(self) -> int:
        """Requests that wait."""
        ...

    @property
    def running(self) -> int:
        """Requests that hold a slot."""
        ...

    @property
    def slots(self) -> int:
        """Requests that may hold one at once."""
        ...

    @property
    def waits(self) -> Tally:
        """How many seconds those waited that got one."""
        ...


@runtime_checkable
class HasQueues(Protocol):
    """A servicer whose work queues /metrics shows, by their engines' names."""

    @property
    def queues(self) -> Mapping[str, Queue]:
        """The queues."""
        ...
