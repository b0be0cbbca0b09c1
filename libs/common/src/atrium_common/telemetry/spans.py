"""Spans of a process, through OpenTelemetry's API alone; every hop of a request makes one.

The tracer travels in the trace's own context: the server that begins a span puts it there,
and what works for that request finds it. Without one nothing is made, and a `hop` costs a
look into a context variable.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Final, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

from atrium_common.errors import AtriumError, Cancelled
from atrium_common.telemetry import semantics

_TRACER: Final = otel_context.create_key("atrium-tracer")
SILENCE: Final = nullcontext(trace.INVALID_SPAN)
_LEFT: Final = (asyncio.CancelledError, GeneratorExit, Cancelled)

Attributes = Mapping[str, str | bool | int | float]


def find_tracer(provider: trace.TracerProvider | None = None) -> trace.Tracer | None:
    """Gives the tracer of `provider`, or of the process's own; ``None`` if nobody records."""
    chosen = provider or trace.get_tracer_provider()
    # The API's stand-in makes spans that nobody records: not worth their time.
    if isinstance(chosen, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    return chosen.get_tracer("atrium")


def recorded(tracer: trace.Tracer, span: trace.Span, parent: Context | None = None) -> Context:
    """Gives the context in which `span` is the current one and hops are made by `tracer`."""
    return otel_context.set_value(_TRACER, tracer, trace.set_span_in_context(span, parent))


def is_recorded() -> bool:
    """Says whether hops are made here: what they would tell need not be gathered otherwise."""
    return otel_context.get_value(_TRACER) is not None


def hop(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: trace.SpanKind = trace.SpanKind.INTERNAL,
) -> AbstractContextManager[trace.Span]:
    """Makes a block of a request's way a span; nothing where nobody records.

    The block may be a part of an async generator: it need not end in the task that began it.
    What it raises becomes the span's `error.type`, its text does not.
    """
    tracer = otel_context.get_value(_TRACER)
    if tracer is None:
        return SILENCE
    return _Hop(cast("trace.Tracer", tracer), name, attributes or {}, kind)


class _Hop(AbstractContextManager[trace.Span]):
    def __init__(
        self, tracer: trace.Tracer, name: str, attributes: Attributes, kind: trace.SpanKind
    ) -> None:
        self._parent = otel_context.get_current()
        self._tracer = tracer
        self._span = tracer.start_span(name, self._parent, kind=kind, attributes=attributes)

    def __enter__(self) -> trace.Span:
        otel_context.attach(recorded(self._tracer, self._span, self._parent))
        return self._span

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            blame(self._span, error)
        self._span.end()
        # Not `detach`: a generator that is closed elsewhere is in another context by now.
        otel_context.attach(self._parent)


def blame(span: trace.Span, error: BaseException) -> None:
    """Says in a span how it ended: by which reason, or that the caller left."""
    if isinstance(error, _LEFT):
        span.set_attribute(semantics.CANCELLED, True)
        return
    reason = error.reason if isinstance(error, AtriumError) else type(error).__name__
    span.set_attribute(semantics.ERROR_TYPE, reason)
    span.set_status(trace.StatusCode.ERROR)


def present_trace() -> tuple[str, str] | None:
    """Gives trace and span id of the present trace in hexadecimal, if there is one."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
