"""One HTTP request and its answer, as the endpoints see them, and the route that gives them.

FastAPI's own handler builds dependencies and serializes answers on every request; the
endpoints here decode and encode with msgspec, so that the gateway's own cost stays small.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, cast

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from atrium_common.errors import Cancelled, Unauthenticated
from atrium_gateway.auth.principal import Principal
from atrium_gateway.deps import Gateway
from atrium_gateway.middleware.proxies import address_of
from atrium_gateway.middleware.request_record import RequestRecord, record_of

JSON = "application/json"
_CLIENT_CLOSED = 499

Endpoint = Callable[["Exchange"], Awaitable[None]]


class Exchange(Request):
    """A request with the means to answer it. Every endpoint takes exactly this."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        self.record: RequestRecord = record_of(scope)
        self.gateway = cast(Gateway, scope["app"].state.gateway)

    async def authenticate(self) -> Principal:
        """Checks the bearer credential.

        Raises:
            Unauthenticated: None was sent, or it does not hold.
            PermissionDenied: It holds, but its tenant or key is blocked.
        """
        scheme, _, token = self._header(b"authorization").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("Send an API key or a token: 'Authorization: Bearer ...'.")
        principal = await self.gateway.authenticator.authenticate(
            token.strip(), address=address_of(self.scope)
        )
        self.record.tenant = principal.tenant
        return principal

    async def json_body(self) -> bytes:
        """Reads the whole body, which the body limit keeps small.

        Raises:
            HTTPException: 415 if it is declared as something other than JSON.
            TooLarge: It is over the limit.
        """
        declared = self._header(b"content-type").partition(";")[0].strip().lower()
        if declared and declared != JSON and not declared.endswith("+json"):
            raise HTTPException(415, f"Send the body as {JSON}.")
        message = await self.receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            return bytes(message["body"])
        pieces = [message]
        while message["type"] == "http.request" and message.get("more_body"):
            message = await self.receive()
            pieces.append(message)
        if message["type"] != "http.request":
            raise Cancelled("The client left before its request had arrived.")
        return b"".join(piece["body"] for piece in pieces)

    async def reply(
        self,
        body: bytes,
        *,
        status: int = 200,
        content_type: str = JSON,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Sends the whole answer."""
        pairs = [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(body)).encode()),
            *encoded(headers or {}),
        ]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})
        await self._send({"type": "http.response.body", "body": body})

    async def reply_in_pieces(
        self,
        pieces: Iterable[bytes],
        *,
        size: int,
        content_type: str = JSON,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Sends the whole answer, of `size` bytes, no faster than the client takes it."""
        length = {"content-length": str(size)}
        await self.start(content_type=content_type, headers={**(headers or {}), **length})
        for piece in pieces:
            await self.write(piece)
            await asyncio.sleep(0)  # a fast client must not keep the others waiting
        await self.write(b"", last=True)

    async def start(self, *, content_type: str, headers: Mapping[str, str]) -> None:
        """Sends the status and headers of an answer that `write` continues."""
        pairs = [(b"content-type", content_type.encode()), *encoded(headers)]
        await self._send({"type": "http.response.start", "status": 200, "headers": pairs})

    def write(self, piece: bytes, *, last: bool = False) -> Awaitable[None]:
        """Sends a piece of an answer at once; waits while the client reads slowly."""
        return self._send({"type": "http.response.body", "body": piece, "more_body": not last})

    def spoil(self) -> None:
        """Says that the answer broke off, although it will have an end: nothing to repeat."""

    def withhold(self) -> None:
        """Says that the answer holds a secret, which no `Idempotency-Key` may show again."""

    def accepted(self) -> list[str]:
        """Gives the media types of `Accept` in their order, without parameters."""
        accept = self.headers.get("accept", "").lower()
        return [kind.partition(";")[0].strip() for kind in accept.split(",")]

    def until_disconnect(self) -> "UntilDisconnect":
        """Gives a block that is cancelled when the client leaves; read the body before it."""
        return UntilDisconnect(self.receive, self.record)

    def _header(self, name: bytes) -> str:
        for key, value in self.scope["headers"]:
            if key == name:
                return str(value, "latin-1")
        return ""


class UntilDisconnect:
    """Cancels its block as soon as the client closes the connection.

    The cancellation is swallowed at the block's end: whatever follows runs, but
    nobody reads what it sends.
    """

    __slots__ = ("_left", "_receive", "_record", "_task", "_watch")

    def __init__(self, receive: Receive, record: RequestRecord) -> None:
        self._receive = receive
        self._record = record
        self._left = False

    async def __aenter__(self) -> "UntilDisconnect":
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs has a task
        self._task = task
        self._watch = asyncio.create_task(self._wait())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._watch.cancel()
        if not self._left:
            return False
        self._task.uncancel()
        return kind is not None and issubclass(kind, asyncio.CancelledError)

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        # The server also says "disconnect" once the answer is complete.
        if not self._record.finished:
            self._record.status = self._record.status or _CLIENT_CLOSED
            self._left = True
            self._task.cancel()


class ExchangeRoute(APIRoute):
    """A route that hands its endpoint an `Exchange` and expects nothing back."""

    def __init__(self, path: str, endpoint: Endpoint, **options: Any) -> None:
        super().__init__(path, endpoint, **(options | {"response_model": None}))

        def serve(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            return endpoint(Exchange(scope, receive, send))

        self.app = serve


def encoded(headers: Mapping[str, str]) -> Iterable[tuple[bytes, bytes]]:
    """Gives headers as ASGI wants them."""
    return ((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items())
