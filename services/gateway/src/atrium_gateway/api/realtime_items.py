"""The conversation items of a live session: what the service hears, as OpenAI's events.

Where silence ends a turn, every segment is an item of its own; where the client does,
all segments of a turn are one. Deltas are only ever appended: an item's deltas joined
are its transcript.
"""

import asyncio
import math
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import structlog

from atrium_common.domain import Usage
from atrium_gateway.api.realtime_socket import RealtimeSocket, error_body
from atrium_gateway.errors import HttpFailure
from atrium_gateway.upstreams.speech import (
    Heard,
    LiveStep,
    Segment,
    SpeechDismissed,
    SpeechStarted,
    SpeechStopped,
)

logger = structlog.get_logger(__name__)

_TRANSCRIPTION = "conversation.item.input_audio_transcription"
_MILLISECOND = timedelta(milliseconds=1)
_LEAST_PROBABILITY = 1e-9


@dataclass(slots=True)
class Item:
    """One item.

    Attributes:
        id: As the client sees it.
        text: What its deltas have said.
        finals: What of it will not change any more.
        committed: Whether the client has been told that its audio is complete.
    """

    id: str
    text: str = ""
    finals: str = ""
    committed: bool = False
    segments: int = 0
    logprobs: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Turn:
    """One call of the service, and what of it is not complete yet.

    Attributes:
        offset: Audio of the session before it.
        by_silence: Whether each segment is an item.
        whole: The one item of a turn that the client ends.
        items: By the segment's index, where each is one.
    """

    offset: timedelta
    by_silence: bool
    logprobs: bool
    whole: Item | None = None
    items: dict[int, Item] = field(default_factory=dict)


class Items:
    """Tells one client what was heard, item by item."""

    def __init__(self, socket: RealtimeSocket, *, prefix: str) -> None:
        """Args: prefix: Begins the ids of the items."""
        self._socket = socket
        self._prefix = prefix
        self._count = 0
        self._turns: dict[int, Turn] = {}
        self._last: str | None = None
        self._told = timedelta()
        # The client's commits and the service's words come from two tasks.
        self._lock = asyncio.Lock()

    @property
    def unfinished(self) -> bool:
        """Whether anything was begun to be said that is not complete."""
        return any(turn.items or turn.whole for turn in self._turns.values())

    def begin(self, number: int, turn: Turn) -> None:
        """Takes note of a turn that begins."""
        self._turns[number] = turn

    def drop(self, number: int) -> None:
        """Forgets what was said in a turn; nothing more is told of it."""
        self._turns.pop(number, None)

    async def commit(self, number: int) -> None:
        """The client ends a turn: what is still to come of it is one item."""
        async with self._lock:
            turn = self._turns[number]
            if turn.by_silence:
                turn.by_silence = False
                turn.whole = _spoken(turn)
            turn.whole = turn.whole or self._new()
            await self._commit(turn.whole)

    async def heard(self, number: int, step: LiveStep, usage: Usage) -> None:
        """Tells what the service said of a turn."""
        turn = self._turns.get(number)
        if turn is None or step is None:
            return
        async with self._lock:
            if isinstance(step, Heard):
                await self._heard(turn, step, usage)
            elif turn.by_silence or step.index in turn.items:
                await self._bound(turn, step, usage)

    async def ended(self, number: int, usage: Usage) -> None:
        """Tells that a turn is complete."""
        turn = self._turns.pop(number, None)
        if turn is not None and turn.whole is not None:
            async with self._lock:
                await self._complete(turn.whole, turn.whole.finals, usage)

    async def fail(self, failure: HttpFailure) -> None:
        """Tells of every item that is not complete that it never will be."""
        for turn in self._turns.values():
            for item in (*turn.items.values(), *([turn.whole] if turn.whole else ())):
                await self._socket.send(
                    f"{_TRANSCRIPTION}.failed",
                    item_id=item.id,
                    content_index=0,
                    error=error_body(failure),
                )
        self._turns.clear()

    async def _bound(
        self, turn: Turn, step: SpeechStarted | SpeechStopped | SpeechDismissed, usage: Usage
    ) -> None:
        if isinstance(step, SpeechStarted):
            await self._start(turn, step.index, step.start)
        elif isinstance(step, SpeechStopped):
            await self._stop(turn, step.index, step.end)
        elif step.index in turn.items:
            await self._complete(turn.items.pop(step.index), "", usage)

    async def _start(self, turn: Turn, index: int, start: timedelta) -> Item:
        item = turn.items.get(index)
        if item is None:
            item = turn.items[index] = self._new()
            await self._socket.send(
                "input_audio_buffer.speech_started",
                item_id=item.id,
                audio_start_ms=(turn.offset + start) // _MILLISECOND,
            )
        return item

    async def _stop(self, turn: Turn, index: int, end: timedelta) -> None:
        item = turn.items.get(index)
        if item is not None and not item.committed:
            await self._socket.send(
                "input_audio_buffer.speech_stopped",
                item_id=item.id,
                audio_end_ms=(turn.offset + end) // _MILLISECOND,
            )
            await self._commit(item)

    async def _heard(self, turn: Turn, heard: Heard, usage: Usage) -> None:
        segment = heard.segment
        own = turn.by_silence or segment.index in turn.items
        if own:
            item = await self._start(turn, segment.index, segment.start)
        else:
            item = turn.whole = turn.whole or self._new()
        text = item.finals + segment.text if item.finals else segment.text.lstrip()
        await self._extend(item, text)
        if not heard.final:
            return
        item.finals = text
        if turn.logprobs:
            item.logprobs += _logprobs(segment)
        if own:
            await self._stop(turn, segment.index, segment.end)
        await self._segment(turn, item, heard)
        if own:
            del turn.items[segment.index]
            await self._complete(item, text, usage)

    async def _extend(self, item: Item, text: str) -> None:
        if not text.startswith(item.text):
            # The transcript at the end is right all the same.
            logger.warning("live text was taken back", item=item.id)
        elif delta := text[len(item.text) :]:
            item.text = text
            await self._socket.send(
                f"{_TRANSCRIPTION}.delta", item_id=item.id, content_index=0, delta=delta
            )

    async def _segment(self, turn: Turn, item: Item, heard: Heard) -> None:
        segment = heard.segment
        item.segments += 1
        await self._socket.send(
            f"{_TRANSCRIPTION}.segment",
            item_id=item.id,
            content_index=0,
            id=f"{item.id}_{item.segments}",
            text=segment.text.strip(),
            speaker="",
            start=(turn.offset + segment.start).total_seconds(),
            end=(turn.offset + segment.end).total_seconds(),
            language=heard.language or None,
            avg_logprob=segment.average_logprob,
            no_speech_prob=segment.no_speech_probability,
        )

    async def _commit(self, item: Item) -> None:
        item.committed = True
        before, self._last = self._last, item.id
        await self._socket.send(
            "input_audio_buffer.committed", item_id=item.id, previous_item_id=before
        )
        shown = {
            "id": item.id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        for kind in ("conversation.item.added", "conversation.item.done"):
            await self._socket.send(kind, item=shown, previous_item_id=before)

    async def _complete(self, item: Item, text: str, usage: Usage) -> None:
        if not item.committed:
            await self._commit(item)
        spent, self._told = usage.input_audio - self._told, usage.input_audio
        await self._socket.send(
            f"{_TRANSCRIPTION}.completed",
            item_id=item.id,
            content_index=0,
            transcript=text,
            logprobs=item.logprobs or None,
            usage={"type": "duration", "seconds": round(spent.total_seconds(), 3)},
        )

    def _new(self) -> Item:
        self._count += 1
        return Item(f"item_{self._prefix}{self._count}")


def _spoken(turn: Turn) -> Item | None:
    """Takes out the item that is being spoken; those before it are on their way."""
    for index, item in turn.items.items():
        if not item.committed:
            return turn.items.pop(index)
    return None


def _logprobs(segment: Segment) -> list[dict[str, Any]]:
    return [
        {
            "token": word.text,
            "bytes": list(word.text.encode()),
            "logprob": math.log(max(word.probability, _LEAST_PROBABILITY)),
        }
        for word in segment.words
    ]
