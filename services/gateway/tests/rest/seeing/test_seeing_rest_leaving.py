"""Clients that leave what looks and reads: work stops, and exactly what was done is charged."""

import asyncio
import base64
import json
import random
from contextlib import suppress

ROUNDS = 60
AT_ONCE = 12
QUESTION = " ".join(["why"] * 200)
"""The fake engine repeats it word by word, a hundredth of a second each."""


def _request(path: str, key: str, body: bytes, kind: str = "application/octet-stream") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _reading(key: str, file: bytes, query: str) -> bytes:
    return _request(f"/api/ocr?model=fake-slow-ocr&{query}", key, file)


def _asking(key: str, picture: str) -> bytes:
    body = {"task": "vqa", "question": QUESTION, "model": "fake-slow-vision", "stream": True}
    text = json.dumps(body | {"image": picture}).encode()
    return _request("/api/image-to-text", key, text, "application/json")


async def _leave(url: str, request: bytes, *, until: bytes, times: int, seconds=20.0) -> int:
    """Sends a request, reads until it has seen something so many times, and closes.

    Gives how often it has seen it in the end; after `seconds` it leaves in any case.
    """
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    read = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while read.count(until) < times and (piece := await reader.read(65536)):
                read += piece
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return read.count(until)


async def test_leaving_a_document_stops_its_pages_and_charges_those_read(rest, until, document):
    key = await rest.key("seeing-leaving-pages", unlimited=True)
    request = _reading(key, document(60, "TIFF"), "stream=true&max_pages=60")
    before = rest.seeing_engine.steps
    told = await _leave(rest.url, request, until=b"event: page", times=3)
    (event,) = await rest.settled("seeing-leaving-pages", 1)
    await until(lambda: not rest.seeing_engine.running)
    stopped = rest.seeing_engine.steps
    await asyncio.sleep(0.15)
    assert rest.seeing_engine.steps == stopped < before + 60
    assert event.outcome == "cancelled"
    assert told <= event.totals.pages <= stopped - before
    assert not event.estimated


async def test_leaving_an_answer_stops_its_words_and_charges_those_told(rest, until, picture):
    key = await rest.key("seeing-leaving-words", unlimited=True)
    text = base64.b64encode(picture()).decode()
    told = await _leave(rest.url, _asking(key, text), until=b"event: delta", times=5)
    (event,) = await rest.settled("seeing-leaving-words", 1)
    await until(lambda: not rest.seeing_engine.running)
    assert event.outcome == "cancelled"
    assert told <= event.totals.output_tokens < 200
    assert event.totals.images == 1


async def test_leaving_at_random_moments_is_charged_once_and_truthfully(
    rest, until, document, picture
):
    key = await rest.key("seeing-leaving-random", unlimited=True)
    chance = random.Random(5)  # noqa: S311 - moments, not secrets
    file, text = document(40, "TIFF"), base64.b64encode(picture()).decode()

    def leave(number: int):
        seconds = chance.uniform(0.01, 0.6)
        if number % 3 == 0:
            request = _asking(key, text)
            return _leave(rest.url, request, until=b"event: delta", times=200, seconds=seconds)
        if number % 3 == 1:
            request = _reading(key, file, "output=pdf&max_pages=40")
            return _leave(rest.url, request, until=b"%%EOF", times=1, seconds=seconds)
        request = _reading(key, file, "stream=true&max_pages=40")
        return _leave(rest.url, request, until=b"event: page", times=40, seconds=seconds)

    before = rest.seeing_engine.steps
    told: list[int] = []
    for start in range(0, ROUNDS, AT_ONCE):
        told += await asyncio.gather(*map(leave, range(start, start + AT_ONCE)))
    await until(lambda: not rest.seeing_engine.running)
    # One that leaves before its request was read was never admitted.
    await until(lambda: not rest.core.admission.open_reservations)
    events = await rest.events("seeing-leaving-random")
    assert sum(map(bool, told)) <= len(events) <= ROUNDS
    assert len({event.id for event in events}) == len(events)
    assert {event.outcome for event in events} <= {"cancelled", "refunded"}
    assert not any(event.estimated for event in events)
    done = rest.seeing_engine.steps - before
    paid = sum(event.totals.pages + event.totals.output_tokens for event in events)
    # What a client saw is paid; what was done while the word of its leaving was on its way is
    # not, and what was not done never is.
    assert sum(told) <= paid <= done


async def test_an_upload_that_breaks_off_costs_nothing_and_is_no_defect(rest, until, capsys):
    key = await rest.key("seeing-leaving-upload")
    request = _reading(key, bytes(100_000), "stream=true")
    await _leave(rest.url, request[: len(request) // 2], until=b"x", times=1, seconds=0.2)
    await asyncio.sleep(0.1)
    assert await rest.events("seeing-leaving-upload") == []
    assert "unhandled" not in capsys.readouterr().out
