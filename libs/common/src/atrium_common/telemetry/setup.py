"""Starts OpenTelemetry's SDK in a process; `server.serve` and the gateway's `__main__` enter it.

It is on where OTEL_EXPORTER_OTLP_ENDPOINT (or ..._TRACES_ENDPOINT) names a collector and the
extra `tracing` is installed. The SDK reads its other standard variables itself: sampling,
batches, headers, resource attributes.
"""

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import structlog
from opentelemetry import trace

from atrium_common.telemetry import semantics

_log = structlog.get_logger("atrium.tracing")

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_FLUSH_SECONDS: Final = 5.0
"""A collector that is away does not hold up the end of a process for longer."""


@contextmanager
def tracing(
    service: str, environment: Mapping[str, str] = os.environ
) -> Iterator[trace.TracerProvider | None]:
    """Records spans while entered and sends them in batches; flushes on leaving.

    Args:
        service: Short name, e.g. ``"llm"``; the spans' `service.name` is ``"atrium-llm"``,
            unless OTEL_SERVICE_NAME says otherwise.
        environment: The process's variables.

    Yields:
        What makes tracers; ``None`` where tracing is off.
    """
    if not _wanted(environment):
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        _log.warning("tracing is off: install the extra 'tracing' of atrium-common")
        yield None
        return
    name = environment.get("OTEL_SERVICE_NAME") or f"atrium-{service}"
    resource = Resource.create(
        {
            semantics.SERVICE_NAME: name,
            semantics.SERVICE_VERSION: version_of(service),
            semantics.SERVICE_INSTANCE: f"{socket.gethostname()}:{os.getpid()}",
        }
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _log.info("tracing is on", service_name=name)
    try:
        yield provider
    finally:
        # A thread of its own: the exporter's patience with a dead collector is longer than ours.
        ending = threading.Thread(target=provider.shutdown, name="flush-spans", daemon=True)
        ending.start()
        ending.join(_FLUSH_SECONDS)


def _wanted(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none":
        return False
    return any(environment.get(name) for name in _ENDPOINTS)


def version_of(service: str) -> str:
    """Version of a service's distribution; of the harness for a service of a test."""
    try:
        return version(f"atrium-{service}")
    except PackageNotFoundError:
        return version("atrium-common")
