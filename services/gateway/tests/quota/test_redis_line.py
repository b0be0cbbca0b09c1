"""One connection for many calls: who is answered with what, late, never, or after a loss."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from atrium_gateway.quota.redis_line import RedisLine

PATIENT = 20.0
SHORT = 0.02
ECHO = ("EVAL", "return ARGV", 0)


@asynccontextmanager
async def line_to(port: int, *, seconds: float = PATIENT) -> AsyncIterator[RedisLine]:
    client = Redis(port=port, protocol=2, retry=Retry(NoBackoff(), 0))
    async with client:
        yield RedisLine(client.connection_pool, seconds=seconds)


class Stub:
    """Answers each connection's n-th ``PING`` with ``:n``, once the test opens the gate."""

    def __init__(self) -> None:
        self.gates: list[asyncio.Event] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.asked = asyncio.Condition()
        self.count = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gate, number = asyncio.Event(), 0
        known = False
        while (words := await _command(reader)) is not None:
            if words[0] != b"PING":  # the client introduces itself
                writer.write(b"+OK\r\n")
                continue
            if not known:
                known = True
                self.gates.append(gate)
                self.writers.append(writer)
            async with self.asked:
                self.count += 1
                self.asked.notify_all()
            await gate.wait()
            number += 1
            writer.write(b":%d\r\n" % number)
        writer.close()

    async def seen(self, count: int) -> None:
        async with self.asked:
            await self.asked.wait_for(lambda: self.count >= count)


async def _command(reader: asyncio.StreamReader) -> list[bytes] | None:
    head = await reader.readline()
    if not head:
        return None
    words = []
    for _ in range(int(head[1:])):
        size = int((await reader.readline())[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words


@asynccontextmanager
async def stubbed(seconds: float) -> AsyncIterator[tuple[Stub, RedisLine]]:
    stub = Stub()
    server = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with line_to(port, seconds=seconds) as line:
        yield stub, line
    for gate in stub.gates:
        gate.set()
    server.close()
    await server.wait_closed()


async def _clients(redis: Redis) -> set[str]:
    return {each["id"] for each in await redis.client_list()}


async def test_many_calls_share_a_connection_and_each_has_its_own_answer(real_redis):
    async with line_to(real_redis.port) as line, Redis(port=real_redis.port) as other:
        before = await _clients(other)
        answers = await asyncio.gather(*(line.call(*ECHO, str(each)) for each in range(500)))
        assert answers == [[b"%d" % each] for each in range(500)]
        assert len(await _clients(other) - before) == 1


async def test_errors_are_those_of_the_call(real_redis):
    async with line_to(real_redis.port) as line:
        calls = line.call("EVALSHA", "0" * 40, 0), line.call("NONE"), line.call(*ECHO, b"\0\r\n")
        missing, unknown, answer = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(missing, NoScriptError)
    assert isinstance(unknown, ResponseError)
    assert answer == [b"\0\r\n"]


async def test_a_call_that_is_given_up_keeps_its_place():
    async with stubbed(PATIENT) as (stub, line):
        first, second = (asyncio.ensure_future(line.call("PING")) for _ in range(2))
        await stub.seen(1)
        first.cancel()
        stub.gates[0].set()
        assert await second == 2
        assert first.cancelled()


async def test_after_a_time_out_calls_go_another_way():
    async with stubbed(SHORT) as (stub, line):
        with pytest.raises(TimeoutError):
            await line.call("PING")
        following = asyncio.ensure_future(line.call("PING"))
        await stub.seen(2)
        stub.gates[1].set()
        assert await following == 1
        assert await line.call("PING") == 2  # on the same connection


async def test_what_waits_when_the_connection_is_lost_fails_and_the_next_call_opens_one():
    async with stubbed(PATIENT) as (stub, line):
        calls = [asyncio.ensure_future(line.call("PING")) for _ in range(3)]
        await stub.seen(1)
        stub.writers[0].transport.abort()
        failed = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in failed] == [RedisConnectionError] * 3
        again = asyncio.ensure_future(line.call("PING"))
        await stub.seen(2)
        stub.gates[1].set()
        assert await again == 1


async def test_a_server_that_says_nothing_is_not_waited_for_longer_than_allowed(monkeypatch):
    async def never(_: Connection) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Connection, "_connect", never)
    async with line_to(1, seconds=SHORT) as line:
        outcomes = await asyncio.gather(
            *(line.call("PING") for _ in range(3)), return_exceptions=True
        )
    assert [type(each) for each in outcomes] == [TimeoutError] * 3


async def test_the_line_ends_with_its_client(real_redis):
    async with Redis(port=real_redis.port) as other:
        before = await _clients(other)
        async with line_to(real_redis.port) as line:
            await line.call("PING")
        async with asyncio.timeout(PATIENT):
            while await _clients(other) - before:  # until the server has looked
                await other.ping()


async def test_a_line_that_nobody_has_any_more_gives_its_connection_back(real_redis):
    pool = BlockingConnectionPool(port=real_redis.port, max_connections=1, timeout=PATIENT)
    async with Redis.from_pool(pool):
        for _ in range(3):
            assert await RedisLine(pool, seconds=PATIENT).call(*ECHO, "x") == [b"x"]
