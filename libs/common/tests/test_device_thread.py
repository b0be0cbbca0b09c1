"""The promises of `DeviceThread`: one thing at a time, and nothing of it survives its reader."""

import asyncio
import contextvars
import random
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import pytest

from atrium_common.errors import Unavailable
from atrium_common.work import CancelToken, DeviceThread


@pytest.fixture
async def device() -> AsyncGenerator[DeviceThread, None]:
    thread = DeviceThread("device-test")
    yield thread
    thread.close()
    assert not thread._thread.is_alive()


async def test_a_call_runs_in_the_thread_with_its_callers_context(device: DeviceThread) -> None:
    variable = contextvars.ContextVar("variable", default="")
    variable.set("of the caller")

    def work(number: int) -> tuple[str, str, int]:
        return threading.current_thread().name, variable.get(), number

    assert await device.call(work, 7) == ("device-test", "of the caller", 7)


async def test_errors_cross_over(device: DeviceThread) -> None:
    with pytest.raises(ZeroDivisionError):
        await device.call(lambda: 1 // 0)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await device.call(lambda: next(iter(())))

    def broken(token: CancelToken) -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    stream = device.stream(broken)
    assert await anext(stream) == 1
    with pytest.raises(ValueError, match="broken"):
        await anext(stream)


async def test_items_arrive_in_order_and_whole(device: DeviceThread) -> None:
    assert [item async for item in device.stream(lambda _: iter(range(500)))] == list(range(500))


async def test_the_loop_stays_free_while_the_thread_works(device: DeviceThread) -> None:
    work = asyncio.create_task(device.call(time.sleep, 0.2))
    longest = 0.0
    while not work.done():
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - began)
    assert longest < 0.1


async def test_the_iterator_is_at_most_two_items_ahead(device: DeviceThread) -> None:
    made = 0

    def count(token: CancelToken) -> Iterator[int]:
        nonlocal made
        for number in range(100):
            made += 1
            yield number

    async with aclosing(device.stream(count)) as stream:
        taken = 0
        async for _ in stream:
            taken += 1
            await asyncio.sleep(0.002)
            assert made <= taken + 2
            if taken == 20:
                break


async def test_leaving_stops_the_work_before_the_next_begins(device: DeviceThread) -> None:
    events: list[str] = []

    def endless(token: CancelToken) -> Iterator[int]:
        try:
            number = 0
            while True:
                time.sleep(0.001)
                yield number
                number += 1
        finally:
            events.append("closed")

    async with aclosing(device.stream(endless)) as stream:
        async for item in stream:
            if item == 3:
                break
    assert events == ["closed"]
    await device.call(events.append, "next")
    assert events == ["closed", "next"]


async def test_work_can_watch_its_token(device: DeviceThread) -> None:
    """A step that takes long and looks at the token ends early, and no error is left."""
    started, left = threading.Event(), threading.Event()

    def step(token: CancelToken) -> Iterator[int]:
        yield 0
        started.set()
        while True:
            try:
                token.raise_if_cancelled()
            except BaseException:
                left.set()
                raise
            time.sleep(0.001)

    async with aclosing(device.stream(step)) as stream:
        async for _ in stream:
            await asyncio.to_thread(started.wait, 5)
            break
    assert left.is_set()


async def test_cancelling_at_any_moment_closes_the_iterator() -> None:
    """Three hundred readers that leave at random moments; the thread is free each time."""
    device = DeviceThread()
    opened = closed = 0

    def steps(token: CancelToken) -> Iterator[int]:
        nonlocal opened, closed
        opened += 1
        try:
            for number in range(50):
                time.sleep(0.0001)
                yield number
        finally:
            closed += 1

    async def read() -> None:
        async with aclosing(device.stream(steps)) as stream:
            async for _ in stream:
                pass

    chance = random.Random(7)  # noqa: S311
    for _ in range(100):
        tasks = [asyncio.create_task(read()) for _ in range(3)]
        for task in tasks:
            await asyncio.sleep(chance.uniform(0, 0.002))
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert opened == closed
    assert await device.call(lambda: "free") == "free"
    assert not device._cancel_streams
    device.close()


async def test_a_call_that_has_not_begun_can_be_cancelled(device: DeviceThread) -> None:
    ran: list[str] = []
    gate = threading.Event()
    first = asyncio.create_task(device.call(gate.wait, 5))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(device.call(ran.append, "second"))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    gate.set()
    await first
    await device.call(ran.append, "third")
    assert ran == ["third"]


async def test_closing_ends_streams_and_refuses_work() -> None:
    device = DeviceThread()

    def endless(token: CancelToken) -> Iterator[int]:
        while True:
            time.sleep(0.001)
            yield 1

    async def read() -> None:
        async for _ in device.stream(endless):
            pass

    reader = asyncio.create_task(read())
    await asyncio.sleep(0.02)
    waiting = asyncio.create_task(device.call(lambda: None))
    await asyncio.sleep(0)
    await asyncio.to_thread(device.close)
    with pytest.raises(Unavailable):
        await reader
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await device.call(lambda: None)
    device.close()
