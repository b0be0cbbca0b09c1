"""A small service with all four arities, to test the harness and its clients with.

Its messages are borrowed from the common stubs: one with a text for the prompt, one
with usage for the answer. Its work is whatever a test sets.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import Message

from atrium.admission.v1 import admission_pb2
from atrium.common.v1 import model_pb2
from atrium_common.context import RequestContext, current_context, report_usage
from atrium_common.domain import Capability, ModelInfo, ModelState, Usage
from atrium_common.service import Context, WorkEstimate
from atrium_common.wire import usage_to_proto

SERVICE_NAME: Final = "atrium.testing.v1.EchoService"
UNARY_UNARY: Final = f"/{SERVICE_NAME}/UnaryUnary"
UNARY_STREAM: Final = f"/{SERVICE_NAME}/UnaryStream"
STREAM_UNARY: Final = f"/{SERVICE_NAME}/StreamUnary"
STREAM_STREAM: Final = f"/{SERVICE_NAME}/StreamStream"
METHODS: Final = (UNARY_UNARY, UNARY_STREAM, STREAM_UNARY, STREAM_STREAM)

Request = model_pb2.LoadModelRequest
Response = admission_pb2.SettleRequest
Work = Callable[[AsyncIterator[str]], AsyncGenerator[Usage, None]]


async def count_prompts(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
    """Answers each prompt with the number so far, as output tokens."""
    count = 0
    async for _ in prompts:
        count += 1
        yield Usage(model="echo", engine="fake", input_tokens=count, output_tokens=count)


class EchoEngine:
    """An engine of one model that a test can break.

    Attributes:
        state: Reported for the model.
        load_error: Raised by `load`.
        verify_error: Raised by `verify`.
        gate: `load` waits for it.
    """

    name = "fake"

    def __init__(self) -> None:
        self.state = ModelState.UNLOADED
        self.load_error: Exception | None = None
        self.verify_error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.verified: list[str] = []
        self.is_closed = False

    async def load(self) -> None:
        """Waits for the gate, then is ready."""
        await self.gate.wait()
        if self.load_error is not None:
            raise self.load_error
        self.state = ModelState.READY

    async def close(self) -> None:
        """Notes that it was closed."""
        self.is_closed = True

    def models(self) -> Sequence[ModelInfo]:
        """Lists the one model."""
        return (
            ModelInfo(
                id="echo",
                capabilities=(Capability.CHAT,),
                engine=self.name,
                aliases=("parrot",),
                state=self.state,
            ),
        )

    async def verify(self, model: str) -> None:
        """Passes unless told otherwise."""
        self.verified.append(model)
        if self.verify_error is not None:
            raise self.verify_error


class EchoServicer:
    """Serves `work` in all four arities.

    Attributes:
        work: Turns prompts into cumulative usages, one per message.
        bound: What `estimate` says of every call; ``None`` is unmetered.
        by_model: Divides a usage over several models; each message then tells both.
        contexts: The context of each call that reached the handler.
        stopped: Calls whose work has ended, however it did.
    """

    service_name = SERVICE_NAME

    def __init__(self, work: Work = count_prompts, *, bound: Usage | None = None) -> None:
        self.work = work
        self.bound = bound
        self.by_model: Callable[[Usage], Sequence[Usage]] = lambda usage: ()
        self.contexts: list[RequestContext] = []
        self.started = 0
        self.stopped = 0

    def register(self, server: grpc.aio.Server) -> None:
        """Adds hand-written handlers: no proto of ours has all four arities."""
        codec: dict[str, Any] = {
            "request_deserializer": Request.FromString,
            "response_serializer": Response.SerializeToString,
        }
        handlers = {
            "UnaryUnary": grpc.unary_unary_rpc_method_handler(self._unary_unary, **codec),
            "UnaryStream": grpc.unary_stream_rpc_method_handler(self._unary_stream, **codec),
            "StreamUnary": grpc.stream_unary_rpc_method_handler(self._stream_unary, **codec),
            "StreamStream": grpc.stream_stream_rpc_method_handler(self._stream_stream, **codec),
        }
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),)
        )

    def estimate(self, method: str, request: Message) -> WorkEstimate | None:
        """Says `bound` of every call."""
        if self.bound is None:
            return None
        return WorkEstimate(capability=Capability.CHAT, model="echo", usage=self.bound)

    async def _unary_unary(self, request: Request, context: Context) -> Response:
        return await self._drain(_one(request))

    async def _stream_unary(self, requests: AsyncIterator[Request], context: Context) -> Response:
        return await self._drain(requests)

    async def _unary_stream(self, request: Request, context: Context) -> AsyncIterator[Response]:
        async with aclosing(self._run(_one(request))) as usages:
            async for usage in usages:
                yield self._response(usage)

    async def _stream_stream(
        self, requests: AsyncIterator[Request], context: Context
    ) -> AsyncIterator[Response]:
        async with aclosing(self._run(requests)) as usages:
            async for usage in usages:
                yield self._response(usage)

    async def _drain(self, requests: AsyncIterator[Request]) -> Response:
        last = Usage(model="echo")
        async for usage in self._run(requests):
            report_usage(usage, self.by_model(usage))
            last = usage
        return self._response(last)

    def _response(self, usage: Usage) -> Response:
        parts = [usage_to_proto(part) for part in self.by_model(usage)]
        return Response(usage=usage_to_proto(usage), usage_by_model=parts)

    async def _run(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Usage, None]:
        self.contexts.append(current_context())
        self.started += 1
        try:
            # Closed by name: a generator that is dropped ends only when it is collected.
            async with aclosing(self.work(_prompts(requests))) as usages:
                async for usage in usages:
                    yield usage
        finally:
            self.stopped += 1


async def call(
    channel: grpc.aio.Channel,
    method: str,
    prompts: Sequence[str] = ("hello",),
    *,
    metadata: Sequence[tuple[str, str]] = (),
    timeout: float | None = 10.0,
) -> list[Response]:
    """Calls one of `METHODS` with `prompts`; returns every response."""
    requests = [make_request(prompt) for prompt in prompts]
    encode, decode = Request.SerializeToString, Response.FromString
    sent = tuple(metadata)
    if method == UNARY_UNARY:
        unary = channel.unary_unary(method, encode, decode)
        return [await unary(requests[0], timeout=timeout, metadata=sent)]
    if method == STREAM_UNARY:
        upload = channel.stream_unary(method, encode, decode)
        return [await upload(_many(requests), timeout=timeout, metadata=sent)]
    if method == UNARY_STREAM:
        download = channel.unary_stream(method, encode, decode)
        stream = download(requests[0], timeout=timeout, metadata=sent)
        return [response async for response in stream]
    both = channel.stream_stream(method, encode, decode)
    duplex = both(_many(requests), timeout=timeout, metadata=sent)
    return [response async for response in duplex]


def make_request(prompt: str) -> Request:
    """Returns a request with one prompt."""
    return Request(model=prompt)


async def _prompts(requests: AsyncIterator[Request]) -> AsyncIterator[str]:
    async for request in requests:
        yield request.model


async def _one(request: Request) -> AsyncIterator[Request]:
    yield request


async def _many(requests: Sequence[Request]) -> AsyncIterator[Request]:
    for request in requests:
        yield request
