"""The HTTP and WebSocket server under the app: uvicorn, as this gateway needs it.

`__main__` serves with it, and so do the tests.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from socket import socket
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

MAX_MESSAGE_BYTES = 1 << 20
"""Largest WebSocket message: an event with about 16 s of audio at 24 kHz, in base64."""
LINGER_SECONDS = 5.0
"""Time that a client has to take its last events and the close frame."""


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """A connection that a client can't keep by not reading.

    uvicorn sends the close frame once the client has read everything before it, and
    waits for that without end; here the frame is sent at once behind what is buffered,
    and what is not taken in time is given up.
    """

    async def send(self, message: MutableMapping[str, Any]) -> None:  # type: ignore[override]
        """Sends one ASGI message."""
        if message["type"] == "websocket.close" and self.handshake_complete:
            self.writable.set()
        await super().send(message)  # type: ignore[arg-type]
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            # uvicorn takes a refusal for a handshake that was forgotten, and logs an error.
            self.handshake_complete = True

    def on_task_complete(self, task: "asyncio.Task[None]") -> None:
        """Gives the connection up a while after the app has done with it."""
        super().on_task_complete(task)
        if not self.disconnected:
            self.loop.call_later(LINGER_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if not self.disconnected:
            self.transport.abort()


class RestServer(uvicorn.Server):
    """A server that leaves signals to others, and lets live sessions end before it does."""

    def __init__(self, config: uvicorn.Config, *, drain: Callable[[], Awaitable[None]]) -> None:
        """Args: drain: Ends the live sessions; awaited when no new ones can come."""
        super().__init__(config)
        self._drain = drain

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none: who serves decides what ends it."""
        yield

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Stops listening, drains the live sessions, then ends what uvicorn ends."""
        for server in self.servers:
            server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                await self._drain()
        await super().shutdown(sockets)


def server_config(app: ASGIApp, *, drain_seconds: float) -> uvicorn.Config:
    """Settings of the server: one process; access lines are our own."""
    return uvicorn.Config(
        app,
        http="httptools",
        ws=BoundedWebSocket,
        ws_max_size=MAX_MESSAGE_BYTES,
        # Audio in base64 does not shrink enough to be worth a context per session.
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # Whose word counts is a setting of ours; uvicorn's default trusts every neighbour.
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(drain_seconds),
    )
