"""Joins what an engine writes faster than its reader wants it; `servicer.py` calls it.

A message per token is dear: on a fast engine most of a gateway's time goes into them.
By default nothing waits here: a reader who keeps up gets every token by itself. One who
needs no token at once may ask for an interval.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from atrium_llm.domain import ChoiceDelta, GenerationEvent

LIMIT = 64
"""Events that may wait for the reader; then the engine waits for him."""


async def coalesced(
    source: AsyncGenerator[GenerationEvent, None],
    *,
    min_interval: float = 0.0,
    limit: int = LIMIT,
) -> AsyncGenerator[GenerationEvent, None]:
    """Gives the events of `source`; those that came while the reader was busy, as one.

    Without an interval the first event stays by itself: it says that the prompt was
    read. Closing this closes `source` before it returns; an error of `source` follows
    its last events.

    Args:
        source: An engine's stream.
        min_interval: Time that events wait for others, in seconds; the end does not.
        limit: Events that may wait; then the engine waits for the reader.
    """
    waiting: list[GenerationEvent] = []
    changed, room = asyncio.Event(), asyncio.Event()

    async def pump() -> None:
        async with aclosing(source):
            async for event in source:
                waiting.append(event)
                changed.set()
                while len(waiting) >= limit:
                    room.clear()
                    await room.wait()

    pumping = asyncio.create_task(pump())
    pumping.add_done_callback(lambda _: changed.set())
    taken = limit if min_interval else 1
    try:
        while True:
            await changed.wait()
            if min_interval and not pumping.done():
                await asyncio.wait({pumping}, timeout=min_interval)
            events = waiting[:taken]
            if not events and pumping.done():
                break
            del waiting[:taken]
            room.set()
            if not waiting and not pumping.done():
                changed.clear()
            if events:
                taken = limit
                yield joined(events)
        await pumping
    finally:
        pumping.cancel()
        await asyncio.wait({pumping})


def joined(events: Sequence[GenerationEvent]) -> GenerationEvent:
    """Makes one event of several: per choice one delta, and the latest usage."""
    if len(events) == 1:
        return events[0]
    deltas: dict[int, list[ChoiceDelta]] = {}
    for event in events:
        for delta in event.deltas:
            deltas.setdefault(delta.index, []).append(delta)
    return GenerationEvent(
        deltas=[_one(parts) for parts in deltas.values()], usage=events[-1].usage
    )


def _one(parts: Sequence[ChoiceDelta]) -> ChoiceDelta:
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[-1],
        text="".join(part.text for part in parts),
        tool_calls=[call for part in parts for call in part.tool_calls],
        logprobs=[token for part in parts for token in part.logprobs],
    )
