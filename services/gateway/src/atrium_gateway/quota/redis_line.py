"""One connection to Redis for all calls of the quota store's script; `redis_calls.py` sends here.

A connection for each call costs several times the call: what the requests of one turn of the
loop ask goes out together here, and the answers come back in that order. The client opens,
authenticates and closes the connection; only its traffic is ours.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol, cast

from hiredis import PushNotification, Reader, pack_command
from redis.asyncio import Connection, ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from atrium_gateway.quota.patience import MOST_SLICES, SLICES, patience

Argument = str | int | bytes


_pack: Final = cast("Callable[[Sequence[Argument]], bytes]", pack_command)


class _Writer(Protocol):
    transport: asyncio.Transport


class _Pool(Protocol):
    async def get_connection(self) -> Connection: ...

    async def release(self, connection: Connection) -> None: ...


class _Call(NamedTuple):
    """A call that waits for its answer, and the slices of time that had passed before it."""

    answer: asyncio.Future[object]
    free: int
    every: int


class RedisLine:
    """A line that is opened when it is needed, and anew when it is lost.

    Args:
        pool: Of a client; what closes it closes the line.
        seconds: Longest wait for a connection, and for an answer; as `patience` counts.
    """

    def __init__(self, pool: ConnectionPool, *, seconds: float) -> None:
        self._pool = cast("_Pool", pool)
        self._seconds = seconds
        self._wire: _Wire | None = None
        self._opening: asyncio.Task[_Wire] | None = None

    def __del__(self) -> None:
        """Gives its connection back; who had the line is gone, and its client may live on."""
        if self._wire is not None:
            self._wire.end()

    async def call(self, *command: Argument) -> object:
        """Sends a command and returns its answer; it is never sent twice.

        Raises:
            NoScriptError: The server does not have the script.
            RedisError: The server refuses, or the connection was lost.
            TimeoutError: There was no answer in time.
        """
        wire = self._wire
        if wire is None or not wire.usable:
            wire = await self._opened()
        return await wire.send(_pack(command))

    async def _opened(self) -> "_Wire":
        """A usable wire; of many calls that need one, one opens it."""
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())
            self._opening.add_done_callback(self._ended)
        return await asyncio.shield(self._opening)

    def _ended(self, task: "asyncio.Task[_Wire]") -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()  # those who waited for it have it, if any still do

    async def _open(self) -> "_Wire":
        async with patience(self._seconds):
            connection = await self._pool.get_connection()
        self._wire = _Wire(connection, self._pool, seconds=self._seconds)
        return self._wire


class _Wire(asyncio.Protocol):
    """A connection in use; calls that time out or are given up keep their place in the line.

    After a time-out, no more calls are sent on it; it ends when nobody waits for it.
    """

    def __init__(self, connection: Connection, pool: _Pool, *, seconds: float) -> None:
        self.usable = True
        self._connection = connection
        self._pool = pool
        self._slice = seconds / SLICES
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(replyError=_error)
        self._calls: deque[_Call] = deque()
        self._out: list[bytes] = []
        self._free = self._every = 0
        self._due = 0.0
        self._watching = False
        self._giving_back: asyncio.Task[None] | None = None
        self._transport = cast("_Writer", connection._writer).transport
        self._client = self._transport.get_protocol()
        self._transport.set_protocol(self)

    def send(self, packed: bytes) -> asyncio.Future[object]:
        """Sends a command with the others of this turn of the loop."""
        answer: asyncio.Future[object] = self._loop.create_future()
        self._calls.append(_Call(answer, self._free, self._every))
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        if not self._watching:
            self._watch()
        return answer

    def end(self) -> None:
        """Closes the connection; what waits fails."""
        if self.usable and not self._loop.is_closed():
            self.usable = False
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hands answers to those who wait, in order."""
        self._reader.feed(data)
        while (found := self._reader.gets()) is not False:
            if isinstance(found, PushNotification):
                continue
            answer = self._calls.popleft().answer
            if answer.done():
                continue
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)
        self._end_unwanted()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails what waits; whether it was done is not known."""
        self.usable = False
        cast("asyncio.Protocol", self._client).connection_lost(exc)
        while self._calls:
            answer = self._calls.popleft().answer
            if not answer.done():
                answer.set_exception(RedisConnectionError("The connection was lost."))
        self._giving_back = self._loop.create_task(self._give_back())

    def _flush(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _watch(self) -> None:
        self._watching = True
        self._due = self._loop.time() + self._slice
        self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        """Counts a slice of time, as free if the loop was on time; ends waits that were long."""
        self._every += 1
        if self._loop.time() - self._due < self._slice / 2:
            self._free += 1
        for call in self._calls:
            # Its first slice may have been only the rest of one.
            if self._free - call.free <= SLICES and self._every - call.every <= MOST_SLICES:
                break
            self.usable = False
            if not call.answer.done():
                call.answer.set_exception(TimeoutError())
        self._end_unwanted()
        if self._calls:
            self._watch()
        else:
            self._watching = False

    def _end_unwanted(self) -> None:
        if not self.usable and all(call.answer.done() for call in self._calls):
            self._transport.abort()

    async def _give_back(self) -> None:
        await self._connection.disconnect(nowait=True)
        await self._pool.release(self._connection)


def _error(text: str) -> Exception:
    return NoScriptError(text) if text.startswith("NOSCRIPT") else ResponseError(text)
