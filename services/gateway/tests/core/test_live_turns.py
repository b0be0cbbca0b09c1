"""Turns of live audio: one after the other, bounded, and never counted twice."""

import asyncio
from datetime import timedelta

import pytest

from atrium_common.domain import Usage
from atrium_common.errors import Unavailable
from atrium_gateway.upstreams.live import AHEAD, LiveTurns, TurnEnded, TurnHeard
from atrium_gateway.upstreams.speech import LiveSpeech, Recording

SPEECH = LiveSpeech(recording=Recording(model="fake"), sample_rate=8000)
SECOND = bytes(16000)


class FakeCall:
    """A call that listens when it is told to."""

    def __init__(self, speech: LiveSpeech) -> None:
        self.usage: Usage | None = None
        self.received = 0
        self.messages: asyncio.Queue[timedelta | None] = asyncio.Queue()

    def listen(self, seconds: float) -> None:
        """Reports so many seconds as listened to."""
        self.messages.put_nowait(timedelta(seconds=seconds))

    async def send(self, data: bytes) -> None:
        self.received += len(data)

    async def finish(self) -> None:
        self.messages.put_nowait(None)

    def cancel(self) -> None:
        self.messages.put_nowait(None)

    def __aiter__(self) -> "FakeCall":
        return self

    async def __anext__(self) -> None:
        listened = await self.messages.get()
        if listened is None:
            raise StopAsyncIteration
        self.usage = Usage(model="fake", input_audio=listened)


class Turns(LiveTurns):
    """Keeps the calls that were made."""

    def __init__(self) -> None:
        self.calls: list[FakeCall] = []
        super().__init__(self._make)

    def _make(self, speech: LiveSpeech) -> FakeCall:
        self.calls.append(FakeCall(speech))
        return self.calls[-1]


async def flooded(turns: Turns, seconds: int) -> None:
    for _ in range(seconds):
        await turns.send(SECOND)


async def test_a_flood_waits_for_what_is_listened_to():
    turns = Turns()
    await turns.begin(SPEECH)
    flood = asyncio.create_task(flooded(turns, 60))
    await asyncio.sleep(0.01)
    assert AHEAD <= turns.sent <= AHEAD + timedelta(seconds=1)
    turns.calls[0].listen(10)
    await anext(turns)
    await asyncio.sleep(0.01)
    assert AHEAD + timedelta(seconds=10) <= turns.sent <= AHEAD + timedelta(seconds=11)
    flood.cancel()
    await asyncio.wait({flood})


async def test_turns_are_told_in_order_and_add_up():
    turns = Turns()
    assert await turns.begin(SPEECH) == 1
    await turns.send(SECOND)
    await turns.finish()
    assert await turns.begin(SPEECH) == 2
    await turns.send(SECOND)
    turns.calls[1].listen(1)
    turns.calls[0].messages = asyncio.Queue()
    turns.calls[0].listen(1)
    turns.calls[0].messages.put_nowait(None)
    await turns.end()
    events = [event async for event in turns]
    assert events == [TurnHeard(1, None), TurnEnded(1), TurnHeard(2, None), TurnEnded(2)]
    assert turns.usage == Usage(model="fake", input_audio=timedelta(seconds=2))
    assert turns.sent == timedelta(seconds=2)


async def test_no_more_than_two_turns_are_open():
    turns = Turns()
    for _ in range(2):
        await turns.begin(SPEECH)
        await turns.finish()
    third = asyncio.create_task(turns.begin(SPEECH))
    await asyncio.sleep(0.01)
    assert len(turns.calls) == 2
    assert await anext(turns) == TurnEnded(1)
    assert await third == 3


async def test_a_turn_that_the_service_ends_is_a_failure_unless_it_was_dropped():
    turns = Turns()
    await turns.begin(SPEECH)
    turns.drop()
    assert await anext(turns) == TurnEnded(1)
    await turns.begin(SPEECH)
    turns.calls[1].messages.put_nowait(None)
    with pytest.raises(Unavailable):
        await anext(turns)
