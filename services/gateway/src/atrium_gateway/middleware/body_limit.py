"""Refuses bodies that are too large or too slow, without holding them.

Installed by `app.py`; the routes inside see a `TooLarge` or a 408 from `receive`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atrium_common.errors import TooLarge
from atrium_gateway.errors import handle

UPLOAD_PATHS = (
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/api/speech-to-text",
    "/api/voices",
    "/v1/images/edits",
    "/api/image-to-image",
    "/api/image-to-text",
    "/api/ocr",
)
PICTURE_PATHS = (
    "/v1/chat/completions",
    "/v1/images/edits",
    "/api/image-to-image",
    "/api/image-to-text",
    "/api/ocr",
)
"""What takes pictures in base64, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """How much may come in, and how slowly.

    Attributes:
        body_bytes: Largest JSON body.
        upload_bytes: Largest upload, its multipart framing included.
        picture_body_bytes: Largest JSON body with pictures in base64.
        idle_seconds: Longest pause between two pieces of a body.
        total_seconds: Longest time for a whole body.
    """

    body_bytes: int
    upload_bytes: int
    picture_body_bytes: int = 16 << 20
    idle_seconds: float = 30.0
    total_seconds: float = 1800.0


class BodyLimit:
    """Counts the bytes of a body as they arrive, and watches the clock."""

    def __init__(
        self,
        app: ASGIApp,
        limits: BodyLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._limits = limits
        self._clock = clock

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serves one connection's scope; a declared length over the limit ends it here."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            return self._app(scope, receive, send)
        limit, declared = self._limit(scope)
        if declared > limit:
            return _refuse(limit, scope, receive, send)
        bounded = _BoundedReceive(receive, limit, self._limits, self._clock)
        return self._app(scope, bounded, send)

    def _limit(self, scope: Scope) -> tuple[int, int]:
        """Gives the limit for this request and the length that it declares."""
        declared = 0
        is_json = False
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                declared = int(value)
            elif name == b"content-type":
                is_json = value.lower().startswith(b"application/json")
        limits, path = self._limits, scope["path"]
        if not is_json and path.startswith(UPLOAD_PATHS):
            return limits.upload_bytes, declared
        if path in PICTURE_PATHS:
            return max(limits.body_bytes, limits.picture_body_bytes), declared
        return limits.body_bytes, declared


class _BoundedReceive:
    """A `receive` that stops at the limits; after the body it only passes messages on."""

    __slots__ = ("_clock", "_deadline", "_limit", "_limits", "_open", "_receive", "_seen")

    def __init__(
        self, receive: Receive, limit: int, limits: BodyLimits, clock: Callable[[], float]
    ) -> None:
        self._receive = receive
        self._limit = limit
        self._limits = limits
        self._clock = clock
        self._deadline = clock() + limits.total_seconds
        self._seen = 0
        self._open = True

    async def __call__(self) -> Message:
        if not self._open:
            return await self._receive()
        message = await self._in_time()
        if message["type"] != "http.request":
            return message
        self._seen += len(message.get("body", b""))
        self._open = bool(message.get("more_body"))
        if self._seen > self._limit:
            self._open = False
            raise _too_large(self._limit)
        return message

    async def _in_time(self) -> Message:
        """Waits for a message; as `asyncio.timeout`, without its cost on every request."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs has a task
        late = False

        def expire() -> None:
            nonlocal late
            late = True
            task.cancel()

        left = min(self._limits.idle_seconds, self._deadline - self._clock())
        timer = loop.call_later(left, expire)
        try:
            return await self._receive()
        except asyncio.CancelledError as err:
            if not late:
                raise
            task.uncancel()
            raise HTTPException(408, "The request's body did not arrive in time.") from err
        finally:
            timer.cancel()


async def _refuse(limit: int, scope: Scope, receive: Receive, send: Send) -> None:
    refusal = await handle(Request(scope), _too_large(limit))
    await refusal(scope, receive, send)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request's body is over the limit of {limit} bytes.")
