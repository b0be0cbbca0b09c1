"""Works ahead of a speech's reader, but not far. `speech.py` reads from it.

The engine's turn is short and nobody else waits for this reader: what an utterance gives
is buffered, and the turn ends with it. Only the next utterance waits until the reader has
caught up.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self, TypeAlias, cast

from atrium_common.work import Ticket
from atrium_tts.engines.base import Samples
from atrium_tts.speech_meter import SpeechMeter
from atrium_tts.speech_plan import Line, SpeechPlan

AHEAD_UTTERANCES = 2
"""Utterances that may be begun beyond the one that is being read."""

AHEAD_SECONDS = 30.0
"""Unread audio from which on no further utterance is begun."""


@dataclass(frozen=True, slots=True)
class Begun:
    """An utterance has its turn; its samples follow, then `Ended`."""

    index: int


@dataclass(frozen=True, slots=True)
class Ended:
    """All samples of an utterance were given."""

    index: int


Item: TypeAlias = Begun | Samples | Ended
Turn: TypeAlias = Callable[[Line], AbstractAsyncContextManager[Ticket]]


class Lookahead:
    """The utterances of one plan, spoken one after the other in turns.

        async with Lookahead(plan, turn=..., meter=..., begun=...) as ahead:
            while (item := await ahead.next()) is not None: ...

    Leaving the block stops the engine at its next piece, and takes until it has stopped.
    """

    def __init__(
        self, plan: SpeechPlan, *, turn: Turn, meter: SpeechMeter, begun: Callable[[], None]
    ) -> None:
        """Prepares; work begins with the block.

        Args:
            plan: What to speak.
            turn: Waits for and holds the engine for one utterance.
            meter: Counts.
            begun: Told when an utterance begins, which may be before its items are read.
        """
        self._plan = plan
        self._turn = turn
        self._meter = meter
        self._begun = begun
        self._items: deque[Item] = deque()
        self._unread = 0
        self._reading = 0
        self._changed = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._work = asyncio.create_task(self._speak())
        self._work.add_done_callback(lambda _: self._changed.set())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        work = self._work
        assert work is not None  # noqa: S101 - the block was entered
        work.cancel()
        await asyncio.wait({work})
        if not work.cancelled() and error is None and (failed := work.exception()) is not None:
            raise failed

    async def next(self) -> Item | None:
        """Returns the next item, or ``None`` after the last one.

        What the engine raises is raised here, after what it gave before was read.
        """
        work = self._work
        assert work is not None  # noqa: S101 - the block was entered
        await self._until(lambda: bool(self._items) or work.done())
        if not self._items:
            await work
            return None
        item = self._items.popleft()
        if isinstance(item, Ended):
            self._reading = item.index + 1
        elif not isinstance(item, Begun):
            self._unread -= len(item)
        self._changed.set()
        return item

    async def _speak(self) -> None:
        for index, line in enumerate(self._plan.lines):
            await self._until(partial(self._has_room, index))
            async with self._turn(line) as ticket:
                if index == 0:
                    self._meter.waited(ticket.queue_time)
                self._meter.begin(line.utterance.characters)
                self._give(Begun(index))
                self._begun()
                try:
                    await self._say(line)
                finally:
                    self._meter.rest()
            self._give(Ended(index))

    async def _say(self, line: Line) -> None:
        engine = self._plan.engine
        # Engines write their streams as async generators; the port promises less.
        stream = cast("AsyncGenerator[Samples, None]", engine.speak(line.request))
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                self._meter.work()
                self._give(piece)
                if not engine.sentencewise:  # a whole text may be long
                    await self._until(self._is_near)

    def _has_room(self, index: int) -> bool:
        return index - self._reading <= AHEAD_UTTERANCES and self._is_near()

    def _is_near(self) -> bool:
        return self._unread < AHEAD_SECONDS * self._plan.sample_rate

    async def _until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            self._changed.clear()
            await self._changed.wait()

    def _give(self, item: Item) -> None:
        if not isinstance(item, Begun | Ended):
            self._unread += len(item)
        self._items.append(item)
        self._changed.set()
