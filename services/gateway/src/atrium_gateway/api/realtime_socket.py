"""One client's WebSocket: events in and out within bounds, and how it ends."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Send

from atrium_gateway.api.realtime_schema import ENCODER
from atrium_gateway.errors import HttpFailure
from atrium_gateway.live import LiveLimits

RESTART = 1012
"""Close code of RFC 6455's registry: the server restarts."""
_PRIVATE = 4000
_MAX_REASON_BYTES = 123


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a session ends.

    Attributes:
        failure: Told as an `error` event first; ``None`` if nothing is wrong.
        code: Close code; ``None`` if the client has closed.
        reason: Sentence of the close frame.
        last_words: Whether what was heard is still written down.
    """

    failure: HttpFailure | None = None
    code: int | None = None
    reason: str = ""
    last_words: bool = False


LEFT = Ending()
"""The client has closed the connection."""
RESTARTING = Ending(code=RESTART, reason="The server restarts; connect again.", last_words=True)


def failed(failure: HttpFailure, *, last_words: bool = False) -> Ending:
    """An end by an error; its close code is 4000 and the HTTP status."""
    return Ending(
        failure=failure,
        code=_PRIVATE + failure.status,
        reason=f"{failure.code}: {failure.message}",
        last_words=last_words,
    )


def timed_out(code: str, message: str, *, last_words: bool = True) -> Ending:
    """An end because something took too long, which is nobody's defect."""
    failure = HttpFailure(408, "invalid_request_error", code, message, None, {})
    return failed(failure, last_words=last_words)


class SocketEnded(Exception):
    """The connection is of no use any more; `ending` says why."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.reason)
        self.ending = ending


class RealtimeSocket:
    """Events over an accepted connection."""

    def __init__(self, receive: Receive, send: Send, limits: LiveLimits, *, prefix: str) -> None:
        """Args: prefix: Begins the ids of the events that are sent."""
        self._receive = receive
        self._send = send
        self._limits = limits
        self._prefix = prefix
        self._count = 0

    async def receive(self) -> str | bytes:
        """Waits for the client's next message.

        Raises:
            SocketEnded: The client has left, or is silent for too long.
        """
        idle = self._limits.idle_seconds
        try:
            async with asyncio.timeout(idle):
                message = await self._receive()
        except TimeoutError:
            text = f"The client sent nothing for {idle:g} seconds."
            raise SocketEnded(timed_out("idle_timeout", text)) from None
        if message["type"] == "websocket.disconnect":
            raise SocketEnded(LEFT)
        received: str | bytes = message.get("text") or message.get("bytes") or ""
        return received

    async def send(self, kind: str, **fields: Any) -> None:
        """Sends an event; waits while the client reads slowly, within bounds.

        Raises:
            SocketEnded: The client has left, or does not read.
        """
        self._count += 1
        event = {"type": kind, "event_id": f"event_{self._prefix}{self._count}", **fields}
        text = ENCODER.encode(event).decode()
        try:
            async with asyncio.timeout(self._limits.send_seconds):
                await self._send({"type": "websocket.send", "text": text})
        except TimeoutError:
            ending = timed_out(
                "client_too_slow", "The client does not read its events.", last_words=False
            )
            raise SocketEnded(ending) from None
        except OSError:  # what the server raises once the client has gone
            raise SocketEnded(LEFT) from None

    async def fail(self, failure: HttpFailure, *, event_id: str | None = None) -> None:
        """Sends an `error` event; `event_id` is that of the client's event at fault."""
        await self.send("error", error={**error_body(failure), "event_id": event_id})

    async def close(self, ending: Ending) -> None:
        """Ends the connection, with the error first if there is one."""
        if ending.code is None:
            return
        try:
            if ending.failure is not None:
                await self.fail(ending.failure)
        except SocketEnded as err:
            if err.ending is LEFT:
                return
        reason = ending.reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        try:
            await self._send({"type": "websocket.close", "code": ending.code, "reason": reason})
        except OSError:
            return  # it has left by itself


def error_body(failure: HttpFailure) -> Mapping[str, str | None]:
    """Gives what an `error` event and a failed transcription tell of an error."""
    return {
        "type": failure.type,
        "code": failure.code,
        "message": failure.message,
        "param": failure.param,
    }
