"""Takes the caller's place in a trace, so that calls to the services carry it on.

Installed by `app.py`; `upstreams/calls.py` sends what is entered here.
"""

from opentelemetry import context as otel_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Receive, Scope, Send

_PROPAGATOR = TraceContextTextMapPropagator()


class CallerTrace:
    """Runs a request inside the trace that its `traceparent` names, if it names one.

    A `traceparent` that is malformed or comes twice is as good as none (W3C Trace
    Context, 3.2): the request is served all the same.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection's scope."""
        parents = [value for name, value in scope.get("headers", ()) if name == b"traceparent"]
        if len(parents) != 1:
            await self._app(scope, receive, send)
            return
        states = [value for name, value in scope["headers"] if name == b"tracestate"]
        carrier = {"traceparent": str(parents[0], "latin-1")}
        if states:
            carrier["tracestate"] = str(b",".join(states), "latin-1")
        entered = otel_context.attach(_PROPAGATOR.extract(carrier))
        try:
            await self._app(scope, receive, send)
        finally:
            otel_context.detach(entered)
