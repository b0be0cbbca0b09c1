"""A call's requests as the edge reads them: checked, peeked at, drained; used by `edge.py`."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import grpc.aio
from google.protobuf.message import DecodeError, Message

from atrium_common.errors import InvalidArgument
from atrium_common.service import Context

_DISCARD_SECONDS: Final = 1.5
_QUIET_SECONDS: Final = 0.1


class _Malformed(Message):
    """Stands for a request that is no valid protobuf."""


def lenient(decode: Callable[[bytes], Message] | None) -> Callable[[bytes], Message] | None:
    """Lets a bad request reach the edge: grpc itself would answer UNKNOWN with its text."""
    if decode is None:
        return None

    def decode_or_mark(data: bytes) -> Message:
        try:
            return decode(data)
        except DecodeError:
            return _Malformed()

    return decode_or_mark


def wellformed(request: Message) -> Message:
    """Returns a request; raises `InvalidArgument` if it could not be decoded."""
    if isinstance(request, _Malformed):
        raise InvalidArgument("The request is no valid protobuf message.")
    return request


class Requests:
    """The requests of one streaming call; the first may be read ahead, for the estimate.

    Read from the context: grpc's own iterator complains when it is not read to its end.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ahead: Message | None = None
        self._ended = False

    async def peek(self) -> Message | None:
        """Reads the first message and keeps it; ``None`` if there is none."""
        try:
            self._ahead = await anext(self)
        except StopAsyncIteration:
            return None
        return self._ahead

    def __aiter__(self) -> "Requests":
        return self

    async def __anext__(self) -> Message:
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            return ahead
        if self._ended:
            raise StopAsyncIteration
        message = await self._context.read()
        if message is grpc.aio.EOF:  # type: ignore[attr-defined]
            self._ended = True
            raise StopAsyncIteration
        return wellformed(message)

    async def discard(self) -> None:
        """Reads on for a moment before a call is refused, until the caller is quiet.

        A grpc.aio client whose write is under way when the status arrives reports
        INTERNAL instead of that status, so a refused upload would look like a defect.
        """
        until = time.monotonic() + _DISCARD_SECONDS
        while not self._ended and time.monotonic() < until:
            try:
                async with asyncio.timeout(_QUIET_SECONDS):
                    message = await self._context.read()
            except (TimeoutError, grpc.aio.BaseError):
                # Quiet, or a read of the cancelled handler is still under way below.
                return
            self._ended = message is grpc.aio.EOF  # type: ignore[attr-defined]
