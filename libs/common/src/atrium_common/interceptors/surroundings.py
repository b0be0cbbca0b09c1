"""What the calls of one server share: its concerns, and who is running.

`edge.py` makes it, every `call.Call` works within it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from structlog.typing import FilteringBoundLogger

from atrium_common.errors import AtriumError, Overloaded, Unavailable
from atrium_common.interceptors.accounts import Accounts
from atrium_common.interceptors.auth import Authenticator
from atrium_common.interceptors.tracing import Tracing
from atrium_common.interceptors.usage import UsageGate

_RETRY: Final = timedelta(seconds=1)


class Interruptible(Protocol):
    """A call that runs."""

    def interrupt(self, error: AtriumError) -> None:
        """Ends it with `error` at its next await, unless it is ending already."""
        ...


class RunningCalls:
    """Counts calls in and out.

    Args:
        most: Calls at once; more are refused.
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._calls: set[Interruptible] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._calls)

    def enter(self, call: Interruptible) -> None:
        """Counts a call in; raises `Overloaded` over the cap."""
        if len(self._calls) >= self._most:
            raise Overloaded("The service has no room now.", retry_after=_RETRY)
        self._calls.add(call)
        self._idle.clear()

    def leave(self, call: Interruptible) -> None:
        """Counts a call out."""
        self._calls.discard(call)
        if not self._calls:
            self._idle.set()

    async def wait_idle(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds until no call runs; says whether that is so."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def interrupt_all(self) -> None:
        """Ends the running calls with an error that says: send it again elsewhere."""
        for call in tuple(self._calls):
            call.interrupt(
                Unavailable("The service is stopping; send the request again.", retry_after=_RETRY)
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What holds for every call of one server.

    Attributes:
        authenticator: Says who calls.
        usage: Admits and settles; ``None`` serves whoever is authenticated, and then only
            callers with the service credential.
        tracing: Opens spans.
        trusted_only: Full paths of methods for holders of the service credential.
        default_deadline: Seconds given to a call without a deadline; ``None`` for no end.
        clock: Monotonic seconds.
        log: Takes refusals.
        running: The calls that run.
        accounts: What calls with one answer have consumed.
    """

    authenticator: Authenticator
    usage: UsageGate | None
    tracing: Tracing
    trusted_only: frozenset[str]
    default_deadline: float | None
    clock: Callable[[], float]
    log: FilteringBoundLogger
    running: RunningCalls
    accounts: Accounts
