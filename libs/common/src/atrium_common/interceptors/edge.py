"""The edge of a server: every concern around every RPC, for the four arities.

One interceptor instead of one per concern: a stream's generator must be closed at
the moment its caller leaves, and a message must not pass six wrappers. `server.py`
installs it; each concern has its own file beside this one.

A call goes: count in, trace, request id, who calls, context, admission, the handler;
and back: settlement, status, count out. gRPC's own services (health, reflection)
pass by, so that they answer however busy the service is.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
import structlog
from google.protobuf.message import Message

from atrium_common.interceptors.accounts import Accounts
from atrium_common.interceptors.auth import Authenticator
from atrium_common.interceptors.call import Call
from atrium_common.interceptors.metrics import MethodMetrics
from atrium_common.interceptors.requests import Requests, lenient, wellformed
from atrium_common.interceptors.surroundings import RunningCalls, Surroundings
from atrium_common.interceptors.tracing import Tracing
from atrium_common.interceptors.usage import UsageGate
from atrium_common.metrics import ServiceMetrics
from atrium_common.service import Context

_OPEN: Final = "/grpc."

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
    Interceptor = grpc.aio.ServerInterceptor[Any, Any]
else:  # generic in the stubs alone
    Handler = grpc.RpcMethodHandler
    Interceptor = grpc.aio.ServerInterceptor
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]


class Edge(Interceptor):
    """Surrounds the RPCs of one server."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        usage: UsageGate | None,
        metrics: ServiceMetrics,
        tracing: Tracing,
        trusted_only: frozenset[str] = frozenset(),
        max_concurrent: int = 512,
        default_deadline: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes the edge of one server.

        Args:
            authenticator: Says who calls.
            usage: Admits and settles; ``None`` serves whoever is authenticated, and
                then only callers with the service credential.
            metrics: Collectors.
            tracing: Opens spans.
            trusted_only: Full paths of methods for holders of the service credential.
            max_concurrent: RPCs at once; more are refused as `Overloaded`.
            default_deadline: Seconds given to a call without a deadline.
            clock: Monotonic seconds.
        """
        self._surroundings = Surroundings(
            authenticator=authenticator,
            usage=usage,
            tracing=tracing,
            trusted_only=trusted_only,
            default_deadline=default_deadline,
            clock=clock,
            # Bound here: a lazy logger costs more than the rest of the edge.
            log=structlog.get_logger("atrium.rpc").bind(),
            running=RunningCalls(most=max_concurrent),
            accounts=Accounts(),
        )
        self._metrics = metrics.rpcs
        self._wrapped: dict[str, Handler] = {}

    @property
    def accounts(self) -> Accounts:
        """What calls with one answer have consumed."""
        return self._surroundings.accounts

    @property
    def running(self) -> int:
        """RPCs running now."""
        return len(self._surroundings.running)

    async def wait_idle(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds until no RPC runs; says whether that is so."""
        return await self._surroundings.running.wait_idle(timeout)

    def interrupt_all(self) -> None:
        """Ends the running RPCs with an error that says: send it again elsewhere."""
        self._surroundings.running.interrupt_all()

    async def intercept_service(  # type: ignore[override]
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Gives grpc the handler with the edge around it; made once per method."""
        method: str = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None or method.startswith(_OPEN):
            return handler
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        run = _Arities(self._surroundings, method, handler, self._metrics.method(method))
        if handler.request_streaming:
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.response_streaming
                else grpc.stream_unary_rpc_method_handler
            )
            behaviour: Any = run.stream_stream if handler.response_streaming else run.stream_unary
        else:
            make = (
                grpc.unary_stream_rpc_method_handler
                if handler.response_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            behaviour = run.unary_stream if handler.response_streaming else run.unary_unary
        return make(
            behaviour,
            request_deserializer=lenient(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )


class _Arities:
    """The four arities of one method; each is a coroutine that grpc awaits.

    Streams are written from here, never yielded to grpc: its own loop would leave a
    cancelled generator to the garbage collector instead of closing it.
    """

    def __init__(
        self, server: Surroundings, method: str, handler: Handler, metrics: MethodMetrics
    ) -> None:
        self._server = server
        self._method = method
        # One of the four is set; the stubs know only the synchronous API's types.
        self._behaviour: Any = (
            handler.unary_unary
            or handler.unary_stream
            or handler.stream_unary
            or handler.stream_stream
        )
        self._metrics = metrics

    def _call(self, context: Context, requests: Requests | None = None) -> Call:
        return Call(self._server, self._method, context, self._metrics, requests)

    async def unary_unary(self, request: Message, context: Context) -> Message | None:
        async def work(call: Call) -> Message:
            await call.admit(wellformed(request))
            call.keep_account()
            response: Message = await self._behaviour(request, context)
            call.note(response)
            return response

        return await self._call(context).run(work)

    async def unary_stream(self, request: Message, context: Context) -> None:
        async def work(call: Call) -> None:
            await call.admit(wellformed(request))
            await _pump(call, self._behaviour(request, context), context)

        await self._call(context).run(work)

    async def stream_unary(
        self, requests: AsyncIterator[Message], context: Context
    ) -> Message | None:
        given = Requests(context)

        async def work(call: Call) -> Message:
            await call.admit(None if call.is_admitted else await given.peek())
            call.keep_account()
            response: Message = await self._behaviour(given, context)
            call.note(response)
            return response

        return await self._call(context, given).run(work)

    async def stream_stream(self, requests: AsyncIterator[Message], context: Context) -> None:
        given = Requests(context)

        async def work(call: Call) -> None:
            await call.admit(None if call.is_admitted else await given.peek())
            await _pump(call, self._behaviour(given, context), context)

        await self._call(context, given).run(work)


async def _pump(call: Call, responses: object, context: Context) -> None:
    """Writes a handler's messages and closes it in this task, whatever happens."""
    if not isinstance(responses, AsyncGenerator):
        raise TypeError("a streaming handler is an async generator function")
    begun = False
    try:
        async for response in responses:
            short = call.note(response)
            await context.write(response)
            begun = begun or call.sent(response)
            if short:
                await call.grow()
    finally:
        await responses.aclose()
