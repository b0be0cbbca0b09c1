"""What a request's trace tells of its way through a service, and what it never tells."""

import asyncio
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing

import grpc
import pytest
import structlog
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from atrium_common.domain import Usage
from atrium_common.errors import Overloaded
from atrium_common.interceptors.tracing import Tracing
from atrium_common.logs import configure_logging
from atrium_common.telemetry.setup import tracing
from atrium_common.telemetry.shares import BatchShare
from atrium_common.telemetry.spans import find_tracer, hop, recorded
from atrium_common.testing import gateway_metadata, running_server
from atrium_common.testing.echo import METHODS, UNARY_STREAM, EchoEngine, EchoServicer, call
from atrium_common.work import WorkQueue

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Recorder:
    """A provider whose spans a test reads."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def named(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self._exporter.get_finished_spans() if span.name == name]
        return found

    @property
    def names(self) -> list[str]:
        return [span.name for span in self._exporter.get_finished_spans()]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.provider.shutdown()


@pytest.fixture
def entered(recorder: Recorder) -> Iterator[trace.Span]:
    """A span that is the present one while the test runs."""
    tracer = find_tracer(recorder.provider)
    assert tracer is not None
    span = tracer.start_span("request")
    token = otel_context.attach(recorded(tracer, span))
    yield span
    otel_context.detach(token)


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


async def test_a_queue_shows_the_wait_and_the_work(recorder: Recorder, entered: trace.Span) -> None:
    queue = WorkQueue(slots=1, max_queue=0)
    async with queue.enter(tenant="acme", model="m"):
        working = trace.get_current_span().get_span_context().span_id
        with pytest.raises(Overloaded):
            async with queue.enter(tenant="acme", model="m"):
                pass
    assert trace.get_current_span() is entered
    async with queue.enter(tenant="acme"):
        assert trace.get_current_span() is entered
    assert recorder.names == ["queue", "queue", "inference"]
    inference = recorder.named("inference")
    assert inference.context is not None
    assert inference.context.span_id == working
    assert parent_of(inference) == entered.get_span_context().span_id
    assert dict(inference.attributes or {}) == {"gen_ai.request.model": "m"}


async def test_a_refusal_is_named_and_its_text_is_not(
    recorder: Recorder, entered: trace.Span
) -> None:
    with pytest.raises(Overloaded), hop("admission"):
        raise Overloaded("a secret of the caller")
    span = recorder.named("admission")
    assert dict(span.attributes or {}) == {"error.type": "OVERLOADED"}
    assert "secret" not in span.to_json()


async def test_a_hop_in_a_generator_may_end_in_another_task(
    recorder: Recorder, entered: trace.Span
) -> None:
    async def work() -> AsyncGenerator[int, None]:
        with hop("inference"):
            yield 1
            yield 2

    generator = work()
    assert await anext(generator) == 1
    await asyncio.create_task(generator.aclose())
    assert dict(recorder.named("inference").attributes or {}) == {"atrium.cancelled": True}


def test_without_a_recorder_a_hop_is_nothing() -> None:
    with hop("inference") as span:
        assert not span.is_recording()
        assert BatchShare.of_present_span() is None


def test_an_engines_thread_tells_of_its_batches(recorder: Recorder, entered: trace.Span) -> None:
    with hop("inference"):
        share = BatchShare.of_present_span()
        assert share is not None
        for rows in (1, 3, 2):
            share.add(rows)
        share.tell()
    assert dict(recorder.named("inference").attributes or {}) == {
        "atrium.batch.steps": 3,
        "atrium.batch.rows.mean": 2.0,
        "atrium.batch.rows.max": 3,
    }


@pytest.mark.parametrize("method", METHODS)
async def test_the_servers_span_tells_the_usage_and_the_request(
    method: str, recorder: Recorder
) -> None:
    async def work(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
        yield Usage(model="echo", engine="fake", input_tokens=3, output_tokens=4)

    servicer = EchoServicer(work)
    tracer = Tracing(recorder.provider)
    async with running_server(servicer, EchoEngine(), tracing=tracer) as (channel, _):
        metadata = (*gateway_metadata(request_id="req_7"), ("traceparent", PARENT))
        await call(channel, method, metadata=metadata)
    attributes = recorder.named(method[1:]).attributes or {}
    assert attributes["gen_ai.response.model"] == "echo"
    assert attributes["gen_ai.usage.input_tokens"] == 3
    assert attributes["gen_ai.usage.output_tokens"] == 4
    assert attributes["atrium.request_id"] == "req_7"
    assert "error.type" not in attributes


async def test_a_caller_who_leaves_ends_the_span(recorder: Recorder) -> None:
    reached, ended = asyncio.Event(), asyncio.Event()

    async def work(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
        try:
            yield Usage(output_tokens=1)
            reached.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    servicer = EchoServicer(work)
    tracer = Tracing(recorder.provider)
    async with running_server(servicer, EchoEngine(), tracing=tracer) as (channel, _):
        running = asyncio.create_task(call(channel, UNARY_STREAM, metadata=gateway_metadata()))
        await reached.wait()
        running.cancel()
        with pytest.raises((asyncio.CancelledError, grpc.RpcError)):
            await running
        await ended.wait()
    attributes = recorder.named(UNARY_STREAM[1:]).attributes or {}
    assert attributes["rpc.grpc.status_code"] == grpc.StatusCode.CANCELLED.value[0]
    assert attributes["error.type"] == "CANCELLED"


@pytest.mark.usefixtures("logs_as_before")
def test_log_lines_carry_the_trace(entered: trace.Span) -> None:
    out = io.StringIO()
    configure_logging("llm", stream=out)
    structlog.get_logger().warning("something", prompt="the secret")
    line = json.loads(out.getvalue())
    context = entered.get_span_context()
    assert line["trace_id"] == format(context.trace_id, "032x")
    assert line["span_id"] == format(context.span_id, "016x")
    assert "secret" not in out.getvalue()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=["unset", "empty", "disabled", "no-exporter"],
)
def test_tracing_is_off_unless_a_collector_is_named(environment: dict[str, str]) -> None:
    with tracing("llm", environment) as provider:
        assert provider is None


async def test_a_generator_read_to_its_end_leaves_the_callers_span(entered: trace.Span) -> None:
    async def work() -> AsyncGenerator[int, None]:
        with hop("inference"):
            yield 1

    async with aclosing(work()) as items:
        assert [item async for item in items] == [1]
    assert trace.get_current_span() is entered
