"""`grpc.health.v1` for one server: a board of names, watched by any number of clients.

Our own servicer, because the packaged one forgets all watchers of a name when the
first of them leaves, and its endless streams hold up a drain. Used by `server.py`.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from atrium_common.service import Context

SERVICE_NAME: Final = "grpc.health.v1.Health"
Status = int

SERVING: Final[Status] = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final[Status] = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN: Final[Status] = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthBoard:
    """Which names serve now. A name that was never set is unknown."""

    def __init__(self) -> None:
        self._states: dict[str, Status] = {}
        self._changed = asyncio.Event()
        self._closing = False

    def set(self, name: str, *, serving: bool) -> None:
        """Sets a name's state and tells its watchers. Does nothing once closing."""
        state = SERVING if serving else NOT_SERVING
        if not self._closing and self._states.get(name) != state:
            self._states[name] = state
            self._notify()

    def get(self, name: str) -> Status | None:
        """Returns a name's state, or ``None`` if it is unknown."""
        return self._states.get(name)

    def is_serving(self, name: str) -> bool:
        """Says whether a name serves."""
        return self._states.get(name) == SERVING

    def close(self) -> None:
        """Sets every name to NOT_SERVING for good; watchers hear it and are let go."""
        self._states = dict.fromkeys(self._states, NOT_SERVING)
        self._closing = True
        self._notify()

    def _notify(self) -> None:
        # Each change has its own event, so that no watcher can miss one by being slow.
        self._changed.set()
        self._changed = asyncio.Event()

    async def watch(self, name: str) -> AsyncIterator[Status]:
        """Yields a name's state now and at each change; ends when the board closes."""
        last: Status | None = None
        while True:
            changed = self._changed
            state = self._states.get(name, _UNKNOWN)
            if state != last:
                last = state
                yield state
                continue
            if self._closing:
                return
            await changed.wait()


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Answers for a board."""

    def __init__(self, board: HealthBoard) -> None:
        self._board = board

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the health service to `server`."""
        health_pb2_grpc.add_HealthServicer_to_server(self, server)

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Answers a name's state; NOT_FOUND for an unknown one."""
        state = self._board.get(request.service)
        if state is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return health_pb2.HealthCheckResponse(status=state)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Streams a name's state."""
        async for state in self._board.watch(request.service):
            yield health_pb2.HealthCheckResponse(status=state)
