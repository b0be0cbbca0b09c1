"""The outermost middleware: request ids, one access line per request, HTTP metrics.

Installed by `app.py`. An exception that arrives here was already answered and logged
by the error handlers; it goes no further.
"""

import re
import time
from collections.abc import Awaitable, Callable

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atrium_gateway.middleware.access_log import AccessLine, AccessLog
from atrium_gateway.middleware.http_metrics import HttpMetrics
from atrium_gateway.middleware.request_record import KEY, RequestRecord

_VISIBLE = re.compile(rb"[\x21-\x7e]{1,128}")
_HEADER = b"x-request-id"
_OBSERVED = frozenset({"http", "websocket"})
_STARTS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
_SWITCHING_PROTOCOLS = 101
_CLIENT_CLOSED = 499
_LEFT = "CANCELLED"
_HANDSHAKE = "GET"
"""Method of a WebSocket's request (RFC 6455, section 4.1)."""


class Observe:
    """Names a request, then tells how it went."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        log: AccessLog,
        metrics: HttpMetrics,
        new_id: Callable[[], str],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app = app
        self._log = log
        self._metrics = metrics
        self._new_id = new_id
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection's scope: a request, or a WebSocket from open to close."""
        if scope["type"] not in _OBSERVED:
            await self._app(scope, receive, send)
            return
        started = self._clock()
        record = scope[KEY] = RequestRecord(self._request_id(scope))
        header = (_HEADER, record.request_id.encode())

        def send_named(message: Message) -> Awaitable[None]:
            if message["type"] in _STARTS:
                if not record.status:
                    record.status = message.get("status", _SWITCHING_PROTOCOLS)
                message["headers"] = [*message.get("headers", ()), header]
            elif not message.get("more_body"):
                record.finished = True
            elif not record.streamed and message.get("body"):
                record.streamed = self._clock()
            return send(message)

        self._metrics.in_flight += 1
        try:
            await self._app(scope, receive, send_named)
        except Exception:
            if not record.status:
                raise  # nobody answered: leave it to the server
        finally:
            self._metrics.in_flight -= 1
            self._tell(scope, record, started)

    def _request_id(self, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == _HEADER and _VISIBLE.fullmatch(value):
                return str(value, "ascii")
        return self._new_id()

    def _tell(self, scope: Scope, record: RequestRecord, started: float) -> None:
        seconds = self._clock() - started
        # The pattern, never the path itself: a label per path would grow without end.
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope.get("method", _HANDSHAKE)
        left = record.status == _CLIENT_CLOSED or (record.status and not record.finished)
        self._metrics.count(
            route,
            method,
            record.status,
            seconds,
            first_byte=record.streamed - started if record.streamed else None,
            reason=record.reason or (_LEFT if left and scope["type"] == "http" else ""),
        )
        client = scope.get("client")
        self._log.write(
            AccessLine(
                request_id=record.request_id,
                method=method,
                path=scope["path"],
                status=record.status,
                seconds=round(seconds, 6),
                client=client[0] if client else "",
                tenant=record.tenant,
                model=record.model,
                replayed=record.replayed or msgspec.UNSET,
                trace_id=record.trace_id or msgspec.UNSET,
                span_id=record.span_id or msgspec.UNSET,
            )
        )
