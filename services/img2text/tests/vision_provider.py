"""A server that plays the chat API of a provider whose model sees, for `test_seeing_openai`."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from atrium_common.images import Pixels

SECRET = "sk-very-secret"
REPLY = ("Two ", "colours, ", "side ", "by ", "side, ", "and ", "no ", "more.")
Handler = Callable[["Asked"], Awaitable[Response]]


@dataclass(frozen=True)
class Asked:
    """One request as the provider got it.

    Attributes:
        key: The authorization header.
        body: What is asked for.
    """

    key: str
    body: Mapping[str, Any]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation."""
        return list(self.body["messages"])

    @property
    def image_url(self) -> str:
        """Address of the only picture."""
        parts = [part for message in self.messages for part in message["content"]]
        (image,) = [part for part in parts if isinstance(part, dict) and "image_url" in part]
        return str(image["image_url"]["url"])

    @property
    def pixels(self) -> Pixels:
        """The only picture."""
        data = base64.b64decode(self.image_url.partition("base64,")[2], validate=True)
        return np.asarray(Image.open(io.BytesIO(data)))


class VisionProvider:
    """Says `REPLY`, a word a token, as far as `max_tokens` lets it.

    Attributes:
        url: Its address.
        asked: Requests, in order.
        handle: Answers them.
        left: Set when a caller closed a stream of `endless` early.
    """

    def __init__(self) -> None:
        self.url = ""
        self.reset()

    def reset(self) -> None:
        """Forgets what was asked, and answers again."""
        self.asked: list[Asked] = []
        self.handle: Handler = self.say
        self.left = asyncio.Event()

    async def say(self, asked: Asked) -> Response:
        """Answers as asked, and counts a word of the conversation as a token."""
        most, n = asked.body.get("max_tokens", 64), asked.body.get("n", 1)
        # It never ends by itself when it is asked for much, so that callers can leave.
        words = [REPLY[place % len(REPLY)] for place in range(most if most > 64 else len(REPLY))]
        reason = "length" if most < len(words) else "stop"
        events = [
            chunk(index=index, delta={"content": word})
            for word in words[:most]
            for index in range(n)
        ]
        events += [chunk(index=index, finish_reason=reason) for index in range(n)]
        read = 85 + len(json.dumps([_texts(message) for message in asked.messages]).split())
        return stream(*events, usage(read, n * min(most, len(words))))

    async def endless(self, asked: Asked) -> Response:
        """Never ends."""
        del asked

        async def body() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield f"data: {json.dumps(chunk(delta={'content': 'more '}))}\n\n".encode()
                    await asyncio.sleep(0.005)
            finally:
                self.left.set()

        return StreamingResponse(body(), media_type="text/event-stream")

    async def answer(self, request: Request) -> Response:
        """Notes a request and answers it."""
        asked = Asked(request.headers["authorization"], json.loads(await request.body()))
        self.asked.append(asked)
        return await self.handle(asked)


@asynccontextmanager
async def vision_provider() -> AsyncIterator[VisionProvider]:
    """Serves until the block ends."""
    provider = VisionProvider()
    app = Starlette(routes=[Route("/v1/chat/completions", provider.answer, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    provider.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield provider
    finally:
        server.should_exit = True
        await task


def chunk(**choice: object) -> dict[str, object]:
    """Makes a chunk with one choice."""
    given = {"index": 0, "delta": {}, "finish_reason": None, **choice}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "choices": [given]}


def text(content: str) -> dict[str, object]:
    """Makes a chunk of text."""
    return chunk(delta={"content": content})


def usage(read: int, written: int) -> dict[str, object]:
    """Makes the chunk that tells what was counted."""
    counted = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return {**chunk(), "choices": [], "usage": counted}


def stream(*chunks: object, done: bool = True, drop: bool = False, pause: float = 0.0) -> Response:
    """Streams chunks; a string goes out as it is.

    Args:
        chunks: What is streamed.
        done: Whether the end is told.
        drop: Break the connection off behind the last chunk.
        pause: Seconds before each chunk but the first.
    """

    async def body() -> AsyncIterator[bytes]:
        for place, one in enumerate(chunks):
            if place:
                await asyncio.sleep(pause)
            data = one if isinstance(one, str) else json.dumps(one)
            yield f"data: {data}\n\n".encode()
        if drop:
            raise ConnectionResetError("as if the provider's process had died")
        if done:
            yield b"data: [DONE]\n\n"

    return StreamingResponse(body(), media_type="text/event-stream")


def says(*chunks: object, done: bool = True, drop: bool = False, pause: float = 0.0) -> Handler:
    """Makes a handler that streams the same to everyone; see `stream`."""

    async def handle(asked: Asked) -> Response:
        del asked
        return stream(*chunks, done=done, drop=drop, pause=pause)

    return handle


def refuses(status: int, *, headers: Mapping[str, str] | None = None, **error: object) -> Handler:
    """Makes a handler that answers with an error whose text holds the key."""
    body = {"error": {"message": f"no good, {SECRET}", "type": "x", **error}}

    async def handle(asked: Asked) -> Response:
        del asked
        return JSONResponse(body, status_code=status, headers=headers)

    return handle


def _texts(message: Mapping[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")
