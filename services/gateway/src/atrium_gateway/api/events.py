"""Server-sent events: an answer that arrives piece by piece, and how it ends when it breaks."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from types import TracebackType

import structlog

from atrium_common.errors import AtriumError
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.errors import describe, openai_body, reason_of, render
from atrium_gateway.quota.limits import LimitView
from atrium_gateway.ratelimit import limit_headers

logger = structlog.get_logger(__name__)

_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class EventStream:
    """Events of one answer.

    Used as a context manager: an error before the first event leaves the block, so
    that it becomes an HTTP status; a later one ends the stream with an error event,
    because a client takes a stream that merely stops for success.
    """

    def __init__(self, exchange: Exchange, *, named: bool = False) -> None:
        """Args: named: True for `event:` lines and problem bodies (`/api`), else OpenAI's."""
        self._exchange = exchange
        self._named = named
        self.opened = False
        """Whether status and headers are sent."""

    async def open(self, limits: Sequence[LimitView]) -> None:
        """Sends status 200 and the headers, once; later calls do nothing."""
        if not self.opened:
            self.opened = True
            await self._exchange.start(
                content_type="text/event-stream; charset=utf-8",
                headers={**_HEADERS, **limit_headers(limits)},
            )

    def send(self, data: bytes, *, event: str | None = None) -> Awaitable[None]:
        """Sends one event at once. `data` is JSON on one line."""
        head = f"event: {event}\n".encode() if event else b""
        return self._exchange.write(b"%bdata: %b\n\n" % (head, data))

    async def send_pieces(self, pieces: Iterable[bytes], *, event: str) -> None:
        """Sends one large event, no faster than the client takes it."""
        await self._exchange.write(b"event: %b\ndata: " % event.encode())
        for piece in pieces:
            await self._exchange.write(piece)
            await asyncio.sleep(0)  # a fast client must not keep the others waiting
        await self._exchange.write(b"\n\n")

    async def close(self, *, done: bool = False) -> None:
        """Ends the stream; with OpenAI's `[DONE]` if `done`."""
        await self._exchange.write(b"data: [DONE]\n\n" if done else b"", last=True)

    async def __aenter__(self) -> "EventStream":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception) or not self.opened:
            return False
        await self._fail(error)
        return True

    async def _fail(self, error: Exception) -> None:
        request_id = self._exchange.record.request_id
        self._exchange.spoil()
        self._exchange.record.reason = reason_of(error)
        if not isinstance(error, AtriumError):
            logger.error("unhandled exception", request_id=request_id, exc_info=error)
        failure = describe(error, request_id=request_id)
        if self._named:
            body, _ = render(failure, path="/api", request_id=request_id)
            await self.send(body, event="error")
        else:
            await self.send(openai_body(failure))
        await self.close()
