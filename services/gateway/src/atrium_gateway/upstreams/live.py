"""Live audio as a row of calls of the stt service, one for each turn of the speaker.

A turn ends when the caller says so; the next one may begin while the service still
writes down the end of the last. `stt.py` makes the calls, `api/realtime_session.py`
speaks and listens through `LiveTurns`.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from atrium_common.domain import Usage
from atrium_common.errors import AtriumError, Unavailable
from atrium_gateway.upstreams.port import UpstreamCall
from atrium_gateway.upstreams.speech import LiveSpeech, LiveStep

MAX_OPEN = 2
"""Turns that may be open at once: the one that is spoken and the one that is written down."""
AHEAD = timedelta(seconds=30)
"""Audio that may be sent before the service has listened to it; it tells every 5 s."""
_SAMPLE_BYTES = 2


class LiveCall(UpstreamCall[LiveStep], Protocol):
    """One turn's call: audio goes in while text comes out."""

    async def send(self, data: bytes) -> None:
        """Sends at most a second of audio; waits while the service is behind.

        A call that has ended takes it without effect: reading tells why it ended.
        """
        ...

    async def finish(self) -> None:
        """Says that the turn's audio is complete."""
        ...


@dataclass(frozen=True, slots=True)
class TurnHeard:
    """What the service says of a turn."""

    turn: int
    step: LiveStep


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """Everything of a turn has been said."""

    turn: int


TurnEvent = TurnHeard | TurnEnded


class _Turn:
    def __init__(self, number: int, call: LiveCall, sample_rate: int) -> None:
        self.number = number
        self.call = call
        self.sample_rate = sample_rate
        self.samples = 0
        self.finished = False
        self.dropped = False

    @property
    def sent(self) -> timedelta:
        return timedelta(seconds=self.samples / self.sample_rate)

    @property
    def listened(self) -> timedelta:
        usage = self.call.usage
        return usage.input_audio if usage else timedelta()


class LiveTurns:
    """The turns of one session: one task sends, another one iterates.

    Meets `UpstreamCall`: usage is the sum over all turns.
    """

    def __init__(self, start: Callable[[LiveSpeech], LiveCall]) -> None:
        """Args: start: Begins a turn's call."""
        self._start = start
        self._speaking: _Turn | None = None
        self._count = 0
        self._ordered: asyncio.Queue[_Turn | None] = asyncio.Queue()
        self._current: _Turn | None = None
        self._live: deque[_Turn] = deque()
        self._room = asyncio.Semaphore(MAX_OPEN)
        self._spent: Usage | None = None
        self._sent_before = timedelta()
        self._progress = asyncio.Event()

    @property
    def usage(self) -> Usage | None:
        """What all turns have consumed so far."""
        usage = self._spent
        for turn in self._live:
            usage = _total(usage, turn.call.usage)
        return usage

    @property
    def usage_by_model(self) -> Sequence[Usage]:
        """Empty: all turns are of one model."""
        return ()

    @property
    def sent(self) -> timedelta:
        """Audio that was sent in all."""
        return self._sent_before + self.sent_in_turn

    @property
    def sent_in_turn(self) -> timedelta:
        """Audio that was sent in the turn that is spoken now; zero if none is."""
        return self._speaking.sent if self._speaking else timedelta()

    async def begin(self, speech: LiveSpeech) -> int:
        """Begins a turn and gives its number; waits while too many are open."""
        await self._room.acquire()
        self._count += 1
        turn = _Turn(self._count, self._start(speech), speech.sample_rate)
        self._speaking = turn
        self._live.append(turn)
        self._ordered.put_nowait(turn)
        return turn.number

    async def send(self, data: bytes) -> None:
        """Sends a piece of the present turn's audio; waits while the service is behind."""
        turn = self._speaking
        if turn is None:
            raise RuntimeError("no turn has begun")
        while turn.sent - turn.listened > AHEAD:
            self._progress.clear()
            await self._progress.wait()
        turn.samples += len(data) // _SAMPLE_BYTES
        await turn.call.send(data)

    async def finish(self) -> None:
        """Ends the present turn, if there is one: the service writes down the rest."""
        turn = self._put_aside()
        if turn is not None:
            await turn.call.finish()

    def drop(self) -> None:
        """Ends the present turn, if there is one, and what it would still have said."""
        turn = self._put_aside()
        if turn is not None:
            turn.dropped = True
            turn.call.cancel()

    async def end(self) -> None:
        """Ends the present turn; the iteration ends when all turns have ended."""
        await self.finish()
        self._ordered.put_nowait(None)

    def _put_aside(self) -> _Turn | None:
        turn, self._speaking = self._speaking, None
        if turn is not None:
            turn.finished = True
            self._sent_before += turn.sent
        return turn

    def __aiter__(self) -> "LiveTurns":
        return self

    async def __anext__(self) -> TurnEvent:
        """Waits for what the service says next; turns follow one another.

        Raises:
            AtriumError: A turn failed, or the service ended it on its own.
        """
        if self._current is None:
            self._current = await self._ordered.get()
        turn = self._current
        if turn is None:
            raise StopAsyncIteration
        try:
            step = await anext(turn.call)
        except StopAsyncIteration:
            if not turn.finished:
                raise Unavailable("The service ended the call.") from None
            return self._close(turn)
        except AtriumError:
            if not turn.dropped:
                raise
            return self._close(turn)
        self._progress.set()
        return TurnHeard(turn.number, None if turn.dropped else step)

    def _close(self, turn: _Turn) -> TurnEnded:
        self._current = None
        self._live.remove(turn)
        self._spent = _total(self._spent, turn.call.usage)
        self._room.release()
        return TurnEnded(turn.number)

    def cancel(self) -> None:
        """Ends all calls at once."""
        for turn in self._live:
            turn.call.cancel()

    def inquiry(self) -> None:
        """Nothing to ask: every turn is a stream, whose messages tell the usage."""


def _total(first: Usage | None, second: Usage | None) -> Usage | None:
    if first is None or second is None:
        return first or second
    return Usage(
        model=second.model,
        model_digest=second.model_digest,
        engine=second.engine,
        queue_time=first.queue_time + second.queue_time,
        inference_time=first.inference_time + second.inference_time,
        input_audio=first.input_audio + second.input_audio,
        estimated=first.estimated or second.estimated,
    )
