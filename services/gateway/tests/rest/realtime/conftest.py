"""Live transcription over real sockets: sound that the fake engine hears, and a raw client."""

import asyncio
import base64
import json
import math
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

RATE = 24000
FRAME = RATE // 10 * 2
"""Bytes of a tenth of a second."""
COMPLETED = "conversation.item.input_audio_transcription.completed"
DELTA = "conversation.item.input_audio_transcription.delta"


def speech(seconds: float, rate: int = RATE) -> bytes:
    """A tone: a word for each second, to the fake engine."""
    samples = (int(8000 * math.sin(i / 10)) for i in range(int(seconds * rate)))
    return array("h", samples).tobytes()


def silence(seconds: float, rate: int = RATE) -> bytes:
    """Nothing to hear."""
    return bytes(2 * int(seconds * rate))


class Talk:
    """A client that sees the bare protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []
        self.errors: list[dict[str, Any]] = []

    async def send(self, kind: str, **fields: Any) -> None:
        """Sends one event."""
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def update(self, **given: Any) -> None:
        """Changes `session.audio.input`."""
        session = {"type": "transcription", "audio": {"input": given}}
        await self.send("session.update", session=session)

    async def say(self, sound: bytes, size: int = FRAME, *, pause: float = 0) -> None:
        """Sends sound in frames; with a pause after each, partial results come in between."""
        for start in range(0, len(sound), size):
            audio = base64.b64encode(sound[start : start + size]).decode()
            await self.send("input_audio_buffer.append", audio=audio)
            await asyncio.sleep(pause)

    async def next(self) -> dict[str, Any]:
        """Waits for one event."""
        event: dict[str, Any] = json.loads(await self.socket.recv())
        self.events.append(event)
        if event["type"] == "error":
            self.errors.append(event["error"])
        return event

    async def until(self, kind: str) -> dict[str, Any]:
        """Waits for an event of a type."""
        while (event := await self.next())["type"] != kind:
            pass
        return event

    async def closed(self) -> tuple[int, str]:
        """Reads to the end; gives the close code and reason."""
        with suppress(ConnectionClosed):
            while True:
                await self.next()
        return self.socket.close_code or 0, self.socket.close_reason or ""

    def all(self, kind: str) -> list[dict[str, Any]]:
        """The events of a type so far."""
        return [event for event in self.events if event["type"] == kind]


@pytest.fixture
def talk() -> Callable[..., Any]:
    """Opens a session as a raw client."""

    @asynccontextmanager
    async def opened(
        rest: Any, key: str, *, query: str = "intent=transcription", **options: Any
    ) -> AsyncIterator[Talk]:
        url = f"{rest.url.replace('http', 'ws', 1)}/v1/realtime?{query}"
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with connect(url, additional_headers=headers, proxy=None, **options) as socket:
            talk = Talk(socket)
            assert (await talk.next())["type"] == "session.created"
            yield talk

    return opened


@pytest.fixture
def sound() -> Any:
    """The makers of sound."""
    return type("Sound", (), {"speech": staticmethod(speech), "silence": staticmethod(silence)})
