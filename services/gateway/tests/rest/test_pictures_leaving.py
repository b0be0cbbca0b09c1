"""Clients that leave pictures behind: steps stop, and exactly those that were taken are charged."""

import asyncio
import json
import random
from contextlib import suppress

import pytest

from atrium_common.errors import Unavailable

ROUNDS = 300
AT_ONCE = 20
PIXELS = 64 * 64
STEP = b"event: progress"


def _request(path: str, key: str, body: bytes, kind: str = "application/json") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _drawing(key: str, *, events: bool) -> bytes:
    body = {"prompt": "a", "model": "fake-slow-pictures", "stream": events, "n": 2}
    return _request("/api/text-to-image", key, json.dumps(body).encode())


def _edit(key: str, file: bytes) -> bytes:
    fields = {"prompt": "a", "model": "fake-slow-edits", "stream": "true", "strength": "1"}
    parts = [
        f'--b\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = '--b\r\ncontent-disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    body = b"".join(parts) + head.encode() + file + b"\r\n--b--\r\n"
    return _request("/api/image-to-image", key, body, "multipart/form-data; boundary=b")


async def _leave(url: str, request: bytes, *, steps: int, seconds: float = 20.0) -> int:
    """Sends a request, reads on until so many steps were told, and closes.

    Gives how many were told in the end; after `seconds` it leaves in any case.
    """
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    read = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while read.count(STEP) < steps and (piece := await reader.read(65536)):
                read += piece
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return read.count(STEP)


async def test_leaving_at_random_moments_is_charged_once_and_truthfully(rest, until, picture):
    key = await rest.key("pictures-leaving", unlimited=True)
    chance = random.Random(11)  # noqa: S311 - moments, not secrets
    before = rest.drawing_engine.steps + rest.editing_engine.steps
    file, told = picture(64, 64), []

    def leave(number: int):
        if number % 5 == 0:  # one who waits for the whole answer, and is told no step
            request, seconds = _drawing(key, events=False), chance.uniform(0, 0.4)
            return _leave(rest.url, request, steps=1, seconds=seconds)
        request = _edit(key, file) if number % 2 else _drawing(key, events=True)
        return _leave(rest.url, request, steps=chance.randrange(1, 40))

    for _ in range(ROUNDS // AT_ONCE):
        told += await asyncio.gather(*map(leave, range(AT_ONCE)))
    for engine in (rest.drawing_engine, rest.editing_engine):
        await until(lambda engine=engine: not engine.running)
    # One that leaves before its request was read was never admitted.
    await until(lambda: not rest.core.admission.open_reservations)
    events = await rest.events("pictures-leaving")
    assert len({event.id for event in events}) == len(events) <= ROUNDS
    assert len(events) >= sum(steps > 0 for steps in told) >= ROUNDS * 3 / 4
    assert {event.outcome for event in events} == {"cancelled"}
    assert not any(event.estimated for event in events)
    assert all(event.totals.images == 0 for event in events)
    # Each pays for at least what it saw, and all together for what was taken: each count is
    # rounded up, and the last steps' word crosses with the client's leaving.
    taken = rest.drawing_engine.steps + rest.editing_engine.steps - before
    paid = [event.totals.millimegapixel_steps * 1000 / PIXELS for event in events]
    for saw, pays in zip(sorted(told, reverse=True), sorted(paid, reverse=True), strict=False):
        assert saw <= pays
    assert taken - 6 * len(events) <= sum(paid) <= taken + len(events)


async def test_steps_stop_when_their_client_leaves(rest, until):
    key = await rest.key("pictures-leaving-stops", unlimited=True)
    engine = rest.drawing_engine
    await until(lambda: not engine.running)
    before = engine.steps
    told = await _leave(rest.url, _drawing(key, events=True), steps=10)
    (event,) = await rest.settled("pictures-leaving-stops", 1)
    await until(lambda: not engine.running)
    stopped = engine.steps
    await asyncio.sleep(0.1)
    assert engine.steps == stopped < before + 2 * 150
    assert event.outcome == "cancelled"
    paid = event.totals.millimegapixel_steps * 1000 / PIXELS
    assert 10 <= told <= paid <= stopped - before + 1
    assert event.totals.inference_time.total_seconds() > 0


async def test_an_upload_that_breaks_off_costs_nothing_and_is_no_defect(rest, capsys):
    key = await rest.key("pictures-leaving-upload")
    request = _edit(key, bytes(100_000))
    await _leave(rest.url, request[: len(request) // 2], steps=1, seconds=0.2)
    await asyncio.sleep(0.1)
    assert await rest.events("pictures-leaving-upload") == []
    assert "unhandled" not in capsys.readouterr().out


@pytest.fixture
def break_off(rest, monkeypatch):
    """Makes the drawing engine fail after a number of events."""
    real = rest.drawing_engine.draw

    def set_up(number: int) -> None:
        async def breaking(plan):
            count = 0
            async for event in real(plan):
                if count == number:
                    raise Unavailable("The engine fell over.")
                count += 1
                yield event

        monkeypatch.setattr(rest.drawing_engine, "draw", breaking)

    return set_up


async def test_what_breaks_is_an_error_answer_or_event(rest, named_events, sse, break_off):
    key = await rest.key("pictures-broken", unlimited=True)
    body = {"prompt": "a", "model": "fake-pictures"}
    async with rest.client(key) as client:
        break_off(3)
        for path in ("/v1/images/generations", "/api/text-to-image"):
            assert (await client.post(path, json=body)).status_code == 503
        broken = await client.post("/api/text-to-image?stream=true", json=body)
        name, problem = named_events(broken.text)[-1]
        assert (name, problem["status"]) == ("error", 503)
        broken = await client.post("/v1/images/generations", json=body | {"stream": True})
        assert sse(broken.text)[-1]["error"]["type"] == "server_error"
    events = await rest.events("pictures-broken")
    assert {event.outcome for event in events} == {"failed"}
    # Three of eight steps were taken, and they are charged.
    assert {event.totals.millimegapixel_steps for event in events} == {13}
