"""A trace passes through a service, with or without an SDK in the process."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from atrium_common.channels import open_channel
from atrium_common.domain import Usage
from atrium_common.errors import NotFound
from atrium_common.interceptors.tracing import Tracing, outgoing_metadata
from atrium_common.server import start_server
from atrium_common.settings import ServiceSettings
from atrium_common.testing import CREDENTIAL, gateway_metadata, running_server
from atrium_common.testing.echo import METHODS, UNARY_UNARY, EchoEngine, EchoServicer, call

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def recorder(seen: list[tuple[tuple[str, str], ...]], error: Exception | None = None):
    """Makes work that notes what it would send on."""

    async def work(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
        seen.append(outgoing_metadata())
        # A task that the handler starts belongs to the same trace.
        seen.append(await asyncio.create_task(_outgoing()))
        if error is not None:
            raise error
        yield Usage(output_tokens=1)

    return work


async def _outgoing() -> tuple[tuple[str, str], ...]:
    return outgoing_metadata()


@pytest.mark.parametrize("method", METHODS)
async def test_without_an_sdk_the_callers_trace_is_passed_on(method: str) -> None:
    seen: list[tuple[tuple[str, str], ...]] = []
    async with running_server(EchoServicer(recorder(seen)), EchoEngine()) as (channel, _):
        await call(channel, method, metadata=(*gateway_metadata(), ("traceparent", PARENT)))
        await call(channel, method, metadata=gateway_metadata())
    assert seen[0] == seen[1] == (("traceparent", PARENT),)
    assert seen[2] == ()


@pytest.mark.parametrize("method", METHODS)
async def test_with_an_sdk_each_call_is_a_span_of_the_callers_trace(method: str) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    seen: list[tuple[tuple[str, str], ...]] = []
    settings = ServiceSettings(port=0, metrics_port=0, service_credential=CREDENTIAL)
    server = await start_server(
        EchoServicer(recorder(seen, NotFound("no"))),
        EchoEngine(),
        settings,
        tracing=Tracing(provider),
    )
    channel = open_channel(f"127.0.0.1:{server.port}")
    with pytest.raises(grpc.RpcError):
        await call(channel, method, metadata=(*gateway_metadata(), ("traceparent", PARENT)))
    await channel.close(None)
    await server.stop()
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    assert format(span.context.trace_id, "032x") == TRACE
    assert span.attributes is not None
    assert span.attributes["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert span.name == method[1:]
    sent = dict(seen[0])["traceparent"]
    assert sent.split("-")[1:3] == [TRACE, format(span.context.span_id, "016x")]
    assert "acme" not in str(span.attributes)


async def test_a_broken_traceparent_is_no_error() -> None:
    async with running_server(EchoServicer(), EchoEngine()) as (channel, _):
        await call(channel, UNARY_UNARY, metadata=(*gateway_metadata(), ("traceparent", "zz")))
