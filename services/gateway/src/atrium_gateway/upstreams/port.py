"""What the pipeline sees of any service: in whose name it is called, and a running call."""

import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from atrium_common.domain import Usage

E_co = TypeVar("E_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """In whose name a service is called; travels as metadata.

    Attributes:
        tenant: Who is charged.
        weight: The tenant's share in fair scheduling.
        reservation_id: Proof that the work was admitted.
        request_id: Joins the log lines of all processes.
        deadline: When all of its work must be done, on `time.monotonic`'s clock.
    """

    tenant: str
    weight: float
    reservation_id: str
    request_id: str
    deadline: float

    def seconds_left(self) -> float:
        """Time that the service has for a call that begins now; 0 if none."""
        return max(0.0, self.deadline - time.monotonic())


class UpstreamCall(Protocol[E_co]):
    """A running call of a service; iterated once for its messages."""

    @property
    def usage(self) -> Usage | None:
        """The last cumulative usage received; ``None`` before the first."""
        ...

    @property
    def usage_by_model(self) -> Sequence[Usage]:
        """The same usage by model, where several models work; else empty."""
        ...

    def __aiter__(self) -> AsyncIterator[E_co]:
        """Gives itself."""
        ...

    async def __anext__(self) -> E_co:
        """Waits for the next message; raises errors of the tree."""
        ...

    def cancel(self) -> None:
        """Ends the call at once; harmless after its end."""
        ...

    def inquiry(self) -> Coroutine[object, object, None] | None:
        """What has to be awaited before `usage` is true of a call that broke off.

        Returns:
            A coroutine that asks the service, and raises an error of the tree if it can't
            be asked; ``None`` where messages have told the usage.
        """
        ...
