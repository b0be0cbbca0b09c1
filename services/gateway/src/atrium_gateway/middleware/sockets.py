"""WebSockets on their way to their endpoints: where they lead, and who may open them.

Installed by `app.py` around everything that speaks HTTP alone. What an endpoint raises
before it accepts is answered like any other refusal, with a status and a body.
"""

from collections.abc import Awaitable, Collection, Mapping
from urllib.parse import urlsplit

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from atrium_common.errors import AtriumError, PermissionDenied
from atrium_gateway.errors import describe, render
from atrium_gateway.middleware.request_record import record_of

logger = structlog.get_logger(__name__)

_REFUSABLE = "websocket.http.response"
_PRIVATE = 4000
"""Where close codes of our own begin: this and the HTTP status."""


class Sockets:
    """Leads WebSockets to their endpoints; passes everything else on.

    A browser names the origin of the page that opens a WebSocket, and asks nobody
    whether it may: so only the server's own pages and those of the allow-list may.
    Other clients send no origin.
    """

    def __init__(
        self,
        app: ASGIApp,
        endpoints: Mapping[str, tuple[BaseRoute, ASGIApp]],
        *,
        outer: Starlette,
        origins: Collection[str],
    ) -> None:
        """Takes the table.

        Args:
            app: Serves what is no WebSocket.
            endpoints: By path: the route that metrics name, and what serves it.
            outer: Stands in the scope as `app`.
            origins: Pages that may open a WebSocket from elsewhere.
        """
        self._app = app
        self._endpoints = endpoints
        self._outer = outer
        self._origins = frozenset(origins)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serves one connection's scope."""
        if scope["type"] != "websocket":
            return self._app(scope, receive, send)
        return self._opened(scope, receive, send)

    async def _opened(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self._outer
        record = record_of(scope)
        try:
            await self._serve(scope, receive, send)
        except Exception as error:  # the edge of what serves a WebSocket
            if record.status:
                raise  # it was accepted: the server closes it
            if not isinstance(error, AtriumError | HTTPException):
                logger.error("unhandled exception", request_id=record.request_id, exc_info=error)
            await _refuse(scope, send, error)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._endpoints.get(scope["path"])
        if found is None:
            raise HTTPException(404)
        scope["route"], endpoint = found
        self._check_origin(scope)
        await endpoint(scope, receive, send)

    def _check_origin(self, scope: Scope) -> None:
        headers = {name: str(value, "latin-1") for name, value in scope["headers"]}
        origin = headers.get(b"origin")
        if origin is None or origin in self._origins:
            return
        if urlsplit(origin).netloc.lower() != headers.get(b"host", "").lower():
            raise PermissionDenied(
                "Pages of this origin may not open a WebSocket here.", reason="ORIGIN_NOT_ALLOWED"
            )


async def _refuse(scope: Scope, send: Send, error: Exception) -> None:
    request_id = record_of(scope).request_id
    failure = describe(error, request_id=request_id)
    if _REFUSABLE not in (scope.get("extensions") or {}):
        reason = failure.message[:100]
        await send({"type": "websocket.close", "code": _PRIVATE + failure.status, "reason": reason})
        return
    body, content_type = render(failure, path=scope["path"], request_id=request_id)
    headers = {"content-type": content_type, **failure.headers}
    pairs = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]
    start = {"type": "websocket.http.response.start", "status": failure.status}
    await send({**start, "headers": pairs})
    await send({"type": "websocket.http.response.body", "body": body})
