"""Running gRPC calls as the pipeline sees them: messages, usage, errors of the tree."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from datetime import timedelta
from typing import Any, Generic, TypeVar

import grpc.aio

from atrium_common.domain import Usage
from atrium_common.errors import AtriumError, DeadlineExceeded, Unavailable
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.interceptors.tracing import outgoing_metadata
from atrium_common.wire import usage_from_proto
from atrium_gateway.upstreams.port import Caller

T = TypeVar("T")
M = TypeVar("M")
_OUTER = re.compile(r"^(job\.(chat\.|sampling\.)?|(config\.)?(denoising\.|output\.)?)")
_UPLOADED = re.compile(r"^(image|mask)_(chunk|end)$")
_SEEN = re.compile(r"^(messages\[\d+\]\.content\[\d+\]\.image)$")


class Metadata(grpc.aio.Metadata):
    """Pairs that are sent as they are; `grpc.aio` would gather those of each call by name.

    Only what a call does with its metadata works: it asks for the length and the pairs.
    """

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self._pairs = pairs

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)


class Credentials:
    """Makes the metadata that tells a service in whose name it is called."""

    def __init__(self, service_credential: str) -> None:
        self._own = ("x-atrium-service", service_credential)

    def metadata(self, caller: Caller) -> Metadata:
        """Gives the metadata of one call."""
        return Metadata(
            self._own,
            ("x-atrium-tenant", caller.tenant),
            ("x-atrium-reservation", caller.reservation_id),
            ("x-atrium-weight", repr(caller.weight)),
            ("x-request-id", caller.request_id),
            *outgoing_metadata(),
        )

    def plain(self, tenant: str, request_id: str) -> Metadata:
        """Gives the metadata of a call that is not metered."""
        return Metadata(
            self._own,
            ("x-atrium-tenant", tenant),
            ("x-request-id", request_id),
            *outgoing_metadata(),
        )


class _Call(Generic[M, T]):
    """What streamed and single answers share."""

    def __init__(self, convert: Callable[[M], T]) -> None:
        self._convert = convert
        self._last: M | None = None
        self._usage: Usage | None = None

    @property
    def usage(self) -> Usage | None:
        """The last cumulative usage received."""
        # Converted when asked for: that is once per request, not once per token.
        # Every metered message has the field, a health state has not.
        if self._usage is None and (last := getattr(self._last, "usage", None)) is not None:
            self._usage = usage_from_proto(last)
        return self._usage

    @property
    def usage_by_model(self) -> Sequence[Usage]:
        """The same by model, where the last message says it."""
        return [usage_from_proto(part) for part in getattr(self._last, "usage_by_model", ())]

    def inquiry(self) -> Coroutine[object, object, None] | None:
        """Nothing to ask: messages tell the usage."""
        return None

    def _take(self, message: M) -> T:
        self._last = message
        self._usage = None
        return self._convert(message)


class StreamedCall(_Call[M, T]):
    """A call that is answered by a stream."""

    def __init__(self, call: Any, convert: Callable[[M], T]) -> None:
        """Args: call: A `grpc.aio` call with `read`; convert: Makes an event of a message."""
        super().__init__(convert)
        self._call = call

    def __aiter__(self) -> "StreamedCall[M, T]":
        return self

    async def __anext__(self) -> T:
        """Waits for the next message; raises errors of the tree."""
        try:
            message = await self._call.read()
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as err:
            raise translated(err) from err
        if message is grpc.aio.EOF:  # type: ignore[attr-defined]
            raise StopAsyncIteration
        return self._take(message)

    def cancel(self) -> None:
        """Ends the call; harmless after its end."""
        self._call.cancel()


class SingleCall(_Call[M, T]):
    """A call that is answered by one message, as a stream of one event."""

    def __init__(self, call: Any, convert: Callable[[M], T]) -> None:
        """Args: call: An awaitable `grpc.aio` call; convert: Makes an event of the answer."""
        super().__init__(convert)
        self._call = call
        self._answered = False

    def __aiter__(self) -> "SingleCall[M, T]":
        return self

    async def __anext__(self) -> T:
        """Waits for the answer; raises errors of the tree."""
        if self._answered:
            raise StopAsyncIteration
        try:
            message = await self._call
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as err:
            raise translated(err) from err
        self._answered = True
        return self._take(message)

    def cancel(self) -> None:
        """Ends the call; harmless after its end."""
        self._call.cancel()


class WholeCall(SingleCall[M, T]):
    """A call that is answered by one message, and told about where that does not arrive."""

    def __init__(
        self, call: Any, convert: Callable[[M], T], ask: Callable[[], Awaitable[Usage | None]]
    ) -> None:
        """Args: call, convert: As `SingleCall`; ask: Asks what the call has consumed."""
        super().__init__(call, convert)
        self._ask = ask
        self._refused = False

    async def __anext__(self) -> T:
        """Waits for the answer; raises errors of the tree."""
        try:
            return await super().__anext__()
        except AtriumError as err:
            # An answer, too: nothing came of it. Only at the deadline there may be work.
            self._refused = not isinstance(err, DeadlineExceeded)
            raise

    def inquiry(self) -> Coroutine[object, object, None] | None:
        """Asks the service, where neither an answer nor a refusal has come."""
        return None if self._answered or self._refused else self._inquire()

    async def _inquire(self) -> None:
        self._usage = await self._ask()


async def unmetered(call: Awaitable[T]) -> T:
    """Waits for the one answer of a call that consumes nothing; raises errors of the tree."""
    try:
        return await call
    except grpc.aio.AioRpcError as err:
        raise translated(err) from err


def translated(error: grpc.aio.AioRpcError | asyncio.CancelledError) -> BaseException:
    """Gives the error of the tree, or the caller's own cancellation as it is."""
    if isinstance(error, grpc.aio.AioRpcError):
        told = from_rpc_error(error)
        if told.field:
            # Fields are known to REST clients without the wire's outer messages.
            told.field = _OUTER.sub("", told.field).replace("inputs", "input", 1)
            told.field = told.field.replace("preview.", "preview_", 1)
            told.field = _UPLOADED.sub(r"\1", told.field)
            told.field = _SEEN.sub(r"\1_url.url", told.field)
        return told
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return error
    # grpc.aio says "cancelled" in the same way when it was the service that ended it.
    return Unavailable("The service ended the call.", retry_after=timedelta(seconds=1))
