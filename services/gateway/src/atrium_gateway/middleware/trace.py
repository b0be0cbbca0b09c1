"""Takes the caller's place in a trace, so that calls to the services carry it on.

Installed by `app.py`; `upstreams/calls.py` sends what is entered here. FastAPI's own
instrumentation is not used: a second one would make each request two spans.
"""

from collections.abc import Awaitable

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atrium_common.telemetry import semantics
from atrium_common.telemetry.spans import present_trace, recorded
from atrium_gateway.middleware.request_record import RequestRecord, record_of

_PROPAGATOR = TraceContextTextMapPropagator()
_STARTS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
_SERVER_ERROR = 500


class CallerTrace:
    """Runs a request inside the trace that its `traceparent` names, if it names one.

    With a tracer, each request is a span of that trace, or of a new one; it ends when the
    answer does, and the answer's `traceparent` names it. A `traceparent` that is malformed
    or comes twice is as good as none (W3C Trace Context, 3.2): the request is served all
    the same.
    """

    def __init__(self, app: ASGIApp, tracer: trace.Tracer | None = None) -> None:
        """Args: tracer: Makes the spans; without one, traces are only passed on."""
        self._app = app
        self._tracer = tracer

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serves one connection's scope."""
        if self._tracer is not None and scope["type"] in ("http", "websocket"):
            return self._recorded(self._tracer, scope, receive, send)
        parent = _callers(scope)
        if parent is None:
            return self._app(scope, receive, send)
        return self._passed_on(parent, scope, receive, send)

    async def _passed_on(self, parent: Context, scope: Scope, receive: Receive, send: Send) -> None:
        entered = otel_context.attach(parent)
        try:
            _note(record_of(scope))
            await self._app(scope, receive, send)
        finally:
            otel_context.detach(entered)

    async def _recorded(
        self, tracer: trace.Tracer, scope: Scope, receive: Receive, send: Send
    ) -> None:
        record = record_of(scope)
        method = scope.get("method", "GET")
        parent = _callers(scope) or Context()
        span = tracer.start_span(
            method,
            parent,
            kind=trace.SpanKind.SERVER,
            attributes={
                semantics.HTTP_METHOD: method,
                semantics.REQUEST_ID: record.request_id,
            },
        )
        entered = otel_context.attach(recorded(tracer, span, parent))
        header = _header()

        def send_traced(message: Message) -> Awaitable[None]:
            if message["type"] in _STARTS:
                message["headers"] = [*message.get("headers", ()), header]
            return send(message)

        try:
            _note(record)
            await self._app(scope, receive, send_traced)
        finally:
            _finish(span, scope, record, method)
            otel_context.detach(entered)


def _callers(scope: Scope) -> Context | None:
    parents = [value for name, value in scope.get("headers", ()) if name == b"traceparent"]
    if len(parents) != 1:
        return None
    states = [value for name, value in scope["headers"] if name == b"tracestate"]
    carrier = {"traceparent": str(parents[0], "latin-1")}
    if states:
        carrier["tracestate"] = str(b",".join(states), "latin-1")
    return _PROPAGATOR.extract(carrier)


def _note(record: RequestRecord) -> None:
    """Has the access line name the trace."""
    present = present_trace()
    if present is not None:
        record.trace_id, record.span_id = present


def _header() -> tuple[bytes, bytes]:
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return b"traceparent", carrier["traceparent"].encode()


def _finish(span: trace.Span, scope: Scope, record: RequestRecord, method: str) -> None:
    route = getattr(scope.get("route"), "path", "")
    if route:
        span.update_name(f"{method} {route}")
        span.set_attribute(semantics.HTTP_ROUTE, route)
    if record.status:
        span.set_attribute(semantics.HTTP_STATUS, record.status)
    if record.replayed:
        span.set_attribute(semantics.REPLAYED, True)
    if record.reason:
        span.set_attribute(semantics.ERROR_TYPE, record.reason)
    elif scope["type"] == "http" and not record.finished:
        span.set_attribute(semantics.CANCELLED, True)
    if record.status >= _SERVER_ERROR:
        span.set_status(trace.StatusCode.ERROR)
    span.end()
