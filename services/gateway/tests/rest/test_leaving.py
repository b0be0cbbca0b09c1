"""A client that leaves stops the work and pays for exactly what was produced."""

import asyncio
import json
import math
import random
from contextlib import suppress

ROUNDS = 200
AT_ONCE = 20


def _request(key: str, *, stream: bool) -> bytes:
    body = json.dumps(
        {
            "model": "fake-slow",
            "messages": [{"role": "user", "content": "hello there"}],
            "stream": stream,
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _leave(url: str, request: bytes, seconds: float, *, most: float = math.inf) -> bytes:
    """Sends a request, reads for a while, or `most` contents, and closes; gives what was read."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    read = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while _contents(read) < most and (piece := await reader.read(65536)):
                read += piece
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return read


def _contents(read: bytes) -> int:
    """Contents of a stream's chunks; the first chunk names the role with an empty one."""
    return read.count(b'"content":"') - 1


async def test_leaving_at_random_moments_is_charged_once_and_exactly(rest, until):
    key = await rest.key("leaving", unlimited=True)
    chance = random.Random(7)  # noqa: S311 - moments, not secrets
    done = 0
    received: list[int] = []
    while done < ROUNDS:
        moments = [chance.uniform(0, 0.4) for _ in range(AT_ONCE)]
        streams = [chance.random() < 0.8 for _ in moments]
        answers = await asyncio.gather(
            *(
                _leave(rest.url, _request(key, stream=stream), seconds)
                for stream, seconds in zip(streams, moments, strict=True)
            )
        )
        received += [_contents(answer) for answer in answers if answer]
        done += AT_ONCE
    await until(lambda: not rest.llm_engine.running)
    # One that leaves before its request was read was never admitted.
    await until(lambda: not rest.core.admission.open_reservations)
    events = await rest.events("leaving")
    assert len({event.id for event in events}) == len(events) <= ROUNDS
    assert len(events) > ROUNDS / 2
    assert {event.outcome for event in events} == {"cancelled"}
    assert not any(event.estimated for event in events)
    assert all(0 <= event.totals.output_tokens < 300 for event in events)
    # What the clients saw is no more than what was charged, in all.
    assert sum(received) <= sum(event.totals.output_tokens for event in events)


async def test_generation_stops_when_its_client_leaves(rest, until):
    key = await rest.key("leaving-stops", unlimited=True)
    await until(lambda: not rest.llm_engine.running)
    await _leave(rest.url, _request(key, stream=True), 0.3)
    await asyncio.sleep(0.1)
    assert rest.llm_engine.running == 0
    steps = rest.llm_engine.steps
    await asyncio.sleep(0.1)
    assert rest.llm_engine.steps == steps
    (event,) = await rest.settled("leaving-stops", 1)
    assert event.outcome == "cancelled"
    assert 0 < event.totals.output_tokens <= steps


async def test_what_is_charged_is_what_was_sent(rest, until):
    """The last usage that arrived is charged: no less than was read, no more than was made."""
    await until(lambda: not rest.llm_engine.running)
    before = rest.llm_engine.steps
    key = await rest.key("leaving-exact", unlimited=True)
    sent = _contents(await _leave(rest.url, _request(key, stream=True), 30, most=50))
    (event,) = await rest.settled("leaving-exact", 1)
    made = rest.llm_engine.steps - before
    assert 50 <= sent <= event.totals.output_tokens <= made <= 300


async def test_upload_that_breaks_off_costs_nothing(rest):
    key = await rest.key("leaving-upload")
    head = (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\n"
        f"authorization: Bearer {key}\r\ncontent-length: 100000\r\n"
        "content-type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
    )
    await _leave(rest.url, head.encode(), 0.2)
    await asyncio.sleep(0.1)
    assert await rest.events("leaving-upload") == []
