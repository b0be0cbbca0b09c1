"""Events that wait for a slow reader come as one; nothing is lost, nothing waits."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrium_common.domain import Usage
from atrium_common.errors import Unavailable
from atrium_llm.coalescing import coalesced, joined
from atrium_llm.domain import ChoiceDelta, FinishReason, GenerationEvent


def event(tokens: int, *texts: str, end: bool = False) -> GenerationEvent:
    reason = FinishReason.STOP if end else None
    return GenerationEvent(
        deltas=[
            ChoiceDelta(index=index, text=text, finish_reason=reason)
            for index, text in enumerate(texts)
        ],
        usage=Usage(output_tokens=tokens),
    )


class Source:
    """An engine's stream that notes how far it was read and whether it was closed."""

    def __init__(self, count: int, *, error: Exception | None = None) -> None:
        self.count, self.error = count, error
        self.made = 0
        self.closed = False

    async def stream(self) -> AsyncGenerator[GenerationEvent, None]:
        try:
            yield event(0)
            for number in range(1, self.count + 1):
                await asyncio.sleep(0)
                self.made = number
                yield event(number, f"{number} ", end=number == self.count)
            if self.error:
                raise self.error
        finally:
            self.closed = True


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 9))
def test_whatever_the_pace_the_text_and_the_end_are_the_same(pauses: list[int], limit: int) -> None:
    async def read() -> list[GenerationEvent]:
        seen = []
        async for each in coalesced(Source(30).stream(), limit=limit):
            seen.append(each)
            for _ in range(pauses[len(seen) % len(pauses)]):
                await asyncio.sleep(0)
        return seen

    seen = asyncio.run(read())
    assert seen[0] == event(0)
    text = "".join(delta.text for each in seen for delta in each.deltas)
    assert text == "".join(f"{number} " for number in range(1, 31))
    counts = [each.usage.output_tokens for each in seen]
    assert counts == sorted(counts)
    assert counts[-1] == 30
    assert [d.finish_reason for each in seen for d in each.deltas][-1] is FinishReason.STOP


async def test_a_slow_reader_gets_fewer_messages_and_holds_the_engine_back() -> None:
    source = Source(200)
    stream = coalesced(source.stream(), limit=16)
    assert (await anext(stream)).usage.output_tokens == 0
    await asyncio.sleep(0.05)
    assert source.made <= 16
    second = await anext(stream)
    assert len(second.deltas[0].text.split()) == second.usage.output_tokens > 1
    await stream.aclose()
    assert source.closed


async def test_an_interval_joins_events_and_the_end_does_not_wait_for_it() -> None:
    began = asyncio.get_running_loop().time()
    counts = [
        each.usage.output_tokens async for each in coalesced(Source(50).stream(), min_interval=30.0)
    ]
    assert counts == [50]
    assert asyncio.get_running_loop().time() - began < 5


async def test_an_error_follows_what_came_before_it() -> None:
    source = Source(3, error=Unavailable("gone"))
    texts: list[str] = []

    async def read() -> None:
        async for each in coalesced(source.stream()):
            texts.extend(delta.text for delta in each.deltas)

    with pytest.raises(Unavailable, match="gone"):
        await read()
    assert "".join(texts) == "1 2 3 "
    assert source.closed


async def test_cancelling_the_reader_closes_the_engines_stream() -> None:
    source = Source(1_000_000)

    async def read() -> None:
        async for _ in coalesced(source.stream()):
            await asyncio.sleep(0.01)

    reader = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    reader.cancel()
    await asyncio.wait({reader})
    made = source.made
    await asyncio.sleep(0.02)
    assert source.made == made < 1_000_000


def test_choices_stay_apart() -> None:
    both = joined([event(2, "a", "x"), event(4, "b", "y"), event(6, "c", "z", end=True)])
    assert [(delta.index, delta.text) for delta in both.deltas] == [(0, "abc"), (1, "xyz")]
    assert all(delta.finish_reason is FinishReason.STOP for delta in both.deltas)
    assert both.usage.output_tokens == 6
