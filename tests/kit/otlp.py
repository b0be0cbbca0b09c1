"""A collector of a test: receives the spans that processes send by OTLP over gRPC."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as pb_grpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class Received:
    """One span.

    Attributes:
        service: `service.name` of the process that sent it.
        parent: Span id of its parent in hexadecimal; empty for a root.
    """

    service: str
    name: str
    trace: str
    id: str
    parent: str
    kind: int
    seconds: float
    attributes: Mapping[str, object]


@dataclass
class Collector(pb_grpc.TraceServiceServicer):
    """What arrived so far.

    Attributes:
        endpoint: For OTEL_EXPORTER_OTLP_ENDPOINT.
        raw: The requests themselves, to search for what must not be there.
    """

    endpoint: str = ""
    raw: list[bytes] = field(default_factory=list)
    _spans: list[Received] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def Export(
        self, request: pb.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> pb.ExportTraceServiceResponse:
        """Takes a batch; grpc calls it."""
        with self._lock:
            self.raw.append(request.SerializeToString())
            for resource in request.resource_spans:
                service = str(_attributes(resource.resource.attributes)["service.name"])
                for scope in resource.scope_spans:
                    self._spans += [_received(service, span) for span in scope.spans]
        return pb.ExportTraceServiceResponse()

    def of_trace(self, trace: str) -> list[Received]:
        """The spans of one trace, from all processes."""
        with self._lock:
            return [span for span in self._spans if span.trace == trace]


@contextmanager
def collector() -> Iterator[Collector]:
    """Listens on a free port while entered."""
    server = grpc.server(ThreadPoolExecutor(4))
    servicer = Collector()
    pb_grpc.add_TraceServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    servicer.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield servicer
    finally:
        server.stop(None).wait()


def _received(service: str, span: Span) -> Received:
    return Received(
        service=service,
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=span.kind,
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        attributes=_attributes(span.attributes),
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, object]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}
