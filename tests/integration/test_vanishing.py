"""Clients that vanish in the midst of their answer: in every capability, at both doors.

What is charged is what was done until then: no less than the client was told, no more than the
engine did, and the engine stops. It may do a moment's work more, unpaid, while the word of the
leaving is on its way.
"""

import asyncio
import base64
import json
import math
import random
from array import array
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
from websockets.asyncio.client import connect

from atrium.common.v1 import media_pb2, usage_pb2
from atrium.stt.v1 import stt_pb2, stt_pb2_grpc
from atrium_gateway.database import open_engine
from tests.kit.direct import DIRECT, PICTURE, SENTENCE, bearer, pages, recording
from tests.kit.fakes import Fake, running_fakes
from tests.kit.stack import Stack, running_stack
from tests.kit.tenancy import Row, events_of, make_tenant

_IMAGE = base64.b64encode(PICTURE).decode()
_PIXELS = 64 * 64
_SETTLED_SECONDS = 20.0
_STILL_SECONDS = 0.5
"""A pause in which a working engine would be seen working."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Work that takes ten seconds, and how its amount is read.

    Attributes:
        direct: The same in `DIRECT`.
        path: Of the same request to the gateway.
        request: Its content, as httpx takes it.
        done: What an engine has done, from its counters.
        paid: The same of an event.
        told: The same of a usage on the wire.
        moment: What is done in a second: the most that may be unpaid.
        whole: What is done by who stays.
    """

    direct: str
    path: str
    request: Mapping[str, Any]
    done: Callable[[Any], float]
    paid: Callable[[Row], float]
    told: Callable[[usage_pb2.Usage], float]
    moment: float
    whole: float


def _text(**fields: object) -> dict[str, Any]:
    return {"json": {"model": "fake-slow", "max_tokens": 3000, "stream": True, **fields}}


def _steps_of(row: Row) -> float:
    return row["millimegapixel_steps"] * 1000 / _PIXELS


def _steps_told(usage: usage_pb2.Usage) -> float:
    return usage.millimegapixel_steps * 1000 / _PIXELS


_TOKENS: dict[str, Any] = {
    "done": lambda engine: engine.steps,
    "paid": lambda row: row["output_tokens"],
    "told": lambda usage: usage.output_tokens,
}
_STEPS: dict[str, Any] = {
    "done": lambda engine: engine.steps,
    "paid": _steps_of,
    "told": _steps_told,
    "moment": 20,
    "whole": 150,
}
CASES = {
    "chat": Case(
        direct="streamed text",
        path="/v1/chat/completions",
        request=_text(messages=[{"role": "user", "content": "Say it."}]),
        moment=300,
        whole=3000,
        **_TOKENS,
    ),
    "completion": Case(
        direct="streamed text",
        path="/v1/completions",
        request=_text(prompt="Say it."),
        moment=300,
        whole=3000,
        **_TOKENS,
    ),
    "speech": Case(
        direct="speech",
        path="/v1/audio/speech",
        request={
            "json": {
                "model": "fake-slow-speech",
                "input": SENTENCE * 40,
                "response_format": "pcm",
            }
        },
        done=lambda engine: engine.started * len(SENTENCE),
        paid=lambda row: row["characters"],
        told=lambda usage: usage.characters,
        moment=10 * len(SENTENCE),
        whole=40 * len(SENTENCE),
    ),
    "transcription": Case(
        direct="transcript",
        path="/v1/audio/transcriptions",
        request={
            "data": {"model": "fake-slow-whisper", "stream": "true"},
            "files": {"file": ("a.wav", recording(60))},
        },
        done=lambda engine: engine.started,  # a second each
        paid=lambda row: row["input_audio_ms"] / 1000,
        told=lambda usage: usage.input_audio.ToMilliseconds() / 1000,
        moment=25,
        whole=60,
    ),
    "text-to-image": Case(
        direct="picture",
        path="/api/text-to-image",
        request={"json": {"model": "fake-slow-pictures", "prompt": "stars", "stream": True}},
        **_STEPS,
    ),
    "image-to-image": Case(
        direct="edit",
        path="/api/image-to-image",
        request={
            "json": {
                "model": "fake-slow-edits",
                "prompt": "stars",
                "image": _IMAGE,
                "strength": 1,
                "stream": True,
            }
        },
        **_STEPS,
    ),
    "image-to-text": Case(
        direct="answer",
        path="/api/image-to-text",
        request={
            "json": {
                "model": "fake-slow-vision",
                "task": "vqa",
                "question": " ".join(["why"] * 200),
                "image": _IMAGE,
                "stream": True,
            }
        },
        moment=20,
        whole=200,
        **_TOKENS,
    ),
    "ocr": Case(
        direct="pages",
        path="/api/ocr?model=fake-slow-ocr&stream=true",
        request={
            "content": pages(20),
            "headers": {"content-type": "application/octet-stream"},
        },
        done=lambda engine: engine.steps,
        paid=lambda row: row["pages"],
        told=lambda usage: usage.pages,
        moment=5,
        whole=20,
    ),
}


@dataclass(frozen=True)
class Running:
    """A gateway apart, and the services here, where their engines can be watched."""

    stack: Stack
    services: Mapping[str, Fake]
    key: str


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder: Path = tmp_path_factory.mktemp("vanishing")
    async with AsyncExitStack() as stack:
        # A machine that stands still for two seconds is not what these ask about.
        longer = {"ATRIUM_GATEWAY_LEASE_SECONDS": "15"}
        made = stack.enter_context(running_stack(folder, environment=longer, started=False))
        fakes = running_fakes(folder, admission_target=made.authority, ports=made.service_ports)
        services = await stack.enter_async_context(fakes)
        await asyncio.to_thread(made.gateways[0].start)
        key = await asyncio.to_thread(make_tenant, made.environments[0], "gone")
        yield Running(made, services, key)


async def vanish_directly(running: Running, case: Case, name: str, messages: int) -> float:
    """Reads some messages and cancels; returns what was told by then."""
    call = DIRECT[case.direct]
    told = 0.0
    async with grpc.aio.insecure_channel(running.stack.targets[call.service]) as channel:
        usages = call.usages(channel, bearer(running.key, name), slow=True)
        async with aclosing(usages):
            async for usage in usages:
                told = case.told(usage)
                messages -= 1
                if messages <= 0:
                    return told
    raise AssertionError("the work was done before its caller left")


async def vanish_over_http(running: Running, case: Case, name: str, seconds: float) -> float:
    """Reads for a while from the first bytes on and closes the connection."""
    headers = {"authorization": f"Bearer {running.key}", "x-request-id": name}
    options = {**case.request, "headers": {**case.request.get("headers", {}), **headers}}
    async with (
        httpx.AsyncClient(base_url=running.stack.gateways[0].url, timeout=30) as client,
        client.stream("POST", case.path, **options) as answer,
    ):
        assert answer.status_code == 200
        pieces = answer.aiter_raw()
        await anext(pieces)
        try:
            async with asyncio.timeout(seconds):
                async for _ in pieces:
                    pass
        except TimeoutError:
            return 0.0
    raise AssertionError("the work was done before its caller left")


async def settled(running: Running, name: str) -> list[Row]:
    engine = open_engine(running.stack.database_url)
    try:
        async with asyncio.timeout(_SETTLED_SECONDS):
            while True:
                events = await events_of(engine, "gone")
                if found := [event for event in events if event["request_id"] == name]:
                    return found
                await asyncio.sleep(0.05)
    finally:
        await engine.dispose()


@pytest.mark.parametrize("door", ["direct", "rest"])
@pytest.mark.parametrize("kind", CASES)
async def test_who_vanishes_pays_for_what_was_done_and_the_work_stops(running, kind, door):
    case = CASES[kind]
    engine = running.services[DIRECT[case.direct].service].engine
    chance = random.Random(f"{kind} {door}")  # noqa: S311 - moments, not secrets
    name = f"{kind}-{door}"
    before = case.done(engine)
    if door == "direct":
        told = await vanish_directly(running, case, name, chance.randint(2, 4))
    else:
        told = await vanish_over_http(running, case, name, chance.uniform(0.1, 0.4))
    (event,) = await settled(running, name)
    await asyncio.sleep(_STILL_SECONDS)
    done = case.done(engine)
    await asyncio.sleep(_STILL_SECONDS)
    assert case.done(engine) == done, "the engine works on"
    assert event["outcome"] == "cancelled"
    assert not event["estimated"]
    did = done - before
    paid = case.paid(event)
    assert told <= paid <= did + 1  # each charge is rounded up
    assert did - paid <= case.moment
    assert paid < case.whole


_RATE = 24_000
_FRAME_SECONDS = 0.1
_SPOKEN_SECONDS = 60
"""Of a live session whose speaker would go on for as long."""


def tone(seconds: float) -> bytes:
    """Speech, to the fake engine."""
    samples = (int(8000 * math.sin(i / 10)) for i in range(int(seconds * _RATE)))
    return array("h", samples).tobytes()


@dataclass
class Speaker:
    """Says what it is asked to, and counts it.

    Attributes:
        said: Seconds so far.
    """

    said: float = 0.0

    async def frames(self) -> AsyncIterator[bytes]:
        """Frames of speech, faster than it is spoken."""
        frame = tone(_FRAME_SECONDS)
        while self.said < _SPOKEN_SECONDS:
            self.said += _FRAME_SECONDS
            yield frame
            await asyncio.sleep(_FRAME_SECONDS / 5)


async def hang_up_directly(running: Running, name: str, speaker: Speaker) -> None:
    """Speaks to the service until it hears, and cancels."""

    async def requests() -> AsyncIterator[stt_pb2.TranscribeLiveAudioRequest]:
        kind = stt_pb2.TranscribeLiveAudioRequest
        config = stt_pb2.LiveTranscriptionConfig(
            transcription=stt_pb2.TranscriptionConfig(model="fake-whisper"),
            format=stt_pb2.LiveAudioFormat(sample_rate=_RATE),
            partial_results=True,
        )
        yield kind(config=config)
        async for frame in speaker.frames():
            yield kind(chunk=media_pb2.MediaChunk(data=frame))

    async with grpc.aio.insecure_channel(running.stack.targets["stt"]) as channel:
        stub = stt_pb2_grpc.TranscriptionServiceStub(channel)
        call = stub.TranscribeLiveAudio(requests(), metadata=bearer(running.key, name))
        async for reply in call:
            if reply.HasField("partial"):
                break
        call.cancel()


async def hang_up(running: Running, name: str, speaker: Speaker, *, rudely: bool) -> None:
    """Speaks into a WebSocket until it hears, and closes it, or only its connection."""
    url = running.stack.gateways[0].url.replace("http", "ws", 1)
    headers = {"authorization": f"Bearer {running.key}", "x-request-id": name}
    async with connect(
        f"{url}/v1/realtime?intent=transcription", additional_headers=headers, proxy=None
    ) as socket:

        async def speak() -> None:
            heard = {"transcription": {"model": "fake-whisper"}}
            session = {"type": "transcription", "audio": {"input": heard}}
            await socket.send(json.dumps({"type": "session.update", "session": session}))
            async for frame in speaker.frames():
                audio = base64.b64encode(frame).decode()
                await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))

        speaking = asyncio.create_task(speak())
        while not json.loads(await socket.recv())["type"].endswith("transcription.delta"):
            pass
        speaking.cancel()
        if rudely:
            socket.transport.abort()


@pytest.mark.parametrize("door", ["direct", "websocket", "broken websocket"])
async def test_who_hangs_up_in_mid_sentence_pays_for_what_was_heard(running, door):
    engine = running.services["stt"].engine
    name, speaker = f"live-{door}".replace(" ", "-"), Speaker()
    if door == "direct":
        await hang_up_directly(running, name, speaker)
    else:
        await hang_up(running, name, speaker, rudely=door != "websocket")
    (event,) = await settled(running, name)
    assert event["outcome"] == "cancelled"
    assert not event["estimated"]
    assert 0 < event["input_audio_ms"] <= speaker.said * 1000 + 1
    assert speaker.said < _SPOKEN_SECONDS
    async with asyncio.timeout(_SETTLED_SECONDS):
        while engine.listening:  # noqa: ASYNC110 - a counter has no event
            await asyncio.sleep(0.02)
