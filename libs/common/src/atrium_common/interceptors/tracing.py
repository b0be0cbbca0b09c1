"""One span per RPC and `traceparent` in and out, through opentelemetry's API alone.

Without an SDK in the process no span is made and only the caller's `traceparent` is
passed on; with one, `edge.py` opens a server span around each RPC.
"""

from collections.abc import Mapping
from contextvars import Token
from dataclasses import dataclass

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from atrium_common.domain import Usage
from atrium_common.interceptors.metadata import TRACEPARENT
from atrium_common.telemetry import semantics
from atrium_common.telemetry.spans import find_tracer, recorded

_PROPAGATOR = TraceContextTextMapPropagator()


@dataclass(slots=True)
class Span:
    """The span of one RPC; `end` it exactly once, in the task that started it."""

    span: trace.Span
    token: Token[otel_context.Context]

    def end(
        self,
        code: grpc.StatusCode,
        *,
        request_id: str = "",
        reason: str = "",
        usage: Usage | None = None,
    ) -> None:
        """Records how the RPC ended and leaves the span's context.

        Args:
            code: Its status.
            request_id: Its id, which log lines have, too.
            reason: Why it failed, a reason of the error tree; empty if it did not.
            usage: What it consumed.
        """
        self.span.set_attribute(semantics.RPC_STATUS, code.value[0])
        self.span.set_attribute(semantics.REQUEST_ID, request_id)
        if reason:
            self.span.set_attribute(semantics.ERROR_TYPE, reason)
        if usage is not None:
            self.span.set_attributes(semantics.usage_attributes(usage))
        if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
            self.span.set_status(trace.StatusCode.ERROR)
        self.span.end()
        otel_context.detach(self.token)


class Tracing:
    """Opens the spans of one server."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        """Uses `provider`, or the process's own if an SDK has set one."""
        self._tracer = find_tracer(provider)

    @property
    def recording(self) -> bool:
        """Whether spans are made."""
        return self._tracer is not None

    def start(self, method: str, metadata: Mapping[str, str]) -> Span | None:
        """Enters the caller's trace; returns the server's span where spans are recorded."""
        if TRACEPARENT not in metadata and self._tracer is None:
            return None
        parent = _PROPAGATOR.extract(metadata)
        if self._tracer is None:
            otel_context.attach(parent)
            return None
        service, _, name = method[1:].rpartition("/")
        span = self._tracer.start_span(
            method[1:],
            context=parent,
            kind=trace.SpanKind.SERVER,
            attributes={
                semantics.RPC_SYSTEM: "grpc",
                semantics.RPC_SERVICE: service,
                semantics.RPC_METHOD: name,
            },
        )
        return Span(span=span, token=otel_context.attach(recorded(self._tracer, span, parent)))


def outgoing_metadata() -> tuple[tuple[str, str], ...]:
    """Returns the `traceparent` (and `tracestate`) of the present trace for a call out."""
    if not trace.get_current_span().get_span_context().is_valid:
        return ()
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return tuple(carrier.items())
