"""Callers at both doors who write down every answer that they got, for `books.py` to compare."""

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import httpx
from msgspec.structs import asdict

from atrium_common.wire import usage_from_proto
from atrium_gateway.usage.records import units_of
from tests.kit.direct import DIRECT, bearer

Units = dict[str, int]

PATIENCE_SECONDS = 15.0
_CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "Say it."}]}
_SLOW = {**_CHAT, "model": "fake-slow", "max_tokens": 90}
_BREAK_SECONDS = 0.05
"""After a refusal or a broken connection."""


@dataclass(frozen=True)
class Answer:
    """A whole answer, as its caller saw it.

    Attributes:
        request_id: Of the request.
        direct: Whether it came straight from a service.
        units: What it says was consumed.
    """

    request_id: str
    direct: bool
    units: Units


@dataclass
class Record:
    """What the callers of one tenant saw.

    Attributes:
        asked: Request ids of everything that was sent.
        answers: What was answered in full.
        refused: Answers that a limit refused.
    """

    asked: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    refused: int = 0


@dataclass(frozen=True)
class Post:
    """A request to the gateway, and how to read its answer's usage."""

    path: str
    body: Mapping[str, Any]
    read: Callable[[str], Units]


def _tokens(usage: Mapping[str, Any]) -> Units:
    return {
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": usage.get("completion_tokens", 0),
    }


def _plain(text: str) -> Units:
    return _tokens(json.loads(text)["usage"])


def _streamed(text: str) -> Units:
    *_, last, done = text.strip().split("\n\n")
    if done != "data: [DONE]":
        raise ValueError("the stream broke off")
    return _tokens(json.loads(last.removeprefix("data: "))["usage"])


def _spoken(text: str) -> Units:
    usage = json.loads(text)["usage"]
    audio = round(usage["output_audio"] * 1000)
    return {"characters": usage["characters"], "output_audio_ms": audio}


def _drawn(text: str) -> Units:
    usage = json.loads(text)["usage"]
    steps = round(usage["megapixel_steps"] * 1000)
    return {"images": usage["images"], "millimegapixel_steps": steps}


_WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
POSTS: Sequence[Post] = (
    Post("/v1/chat/completions", _CHAT, _plain),
    Post("/v1/chat/completions", {**_CHAT, **_WITH_USAGE}, _streamed),
    Post("/v1/chat/completions", {**_SLOW, **_WITH_USAGE}, _streamed),
    Post("/v1/embeddings", {"model": "fake-embedding", "input": "some words"}, _plain),
    Post("/api/text-to-speech", {"model": "fake-speech", "text": "Say it."}, _spoken),
    Post("/api/text-to-image", {"model": "fake-pictures", "prompt": "stars"}, _drawn),
)
SLOW = POSTS[2]
"""Holds its slot for a third of a second."""


@dataclass(frozen=True)
class Callers:
    """Callers of one tenant.

    Attributes:
        tenant: Begins their request ids.
        key: A key of it.
        urls: Gateways; each request takes one at random.
        targets: Services, for those who call directly.
        chance: Chooses what is asked, and where.
        record: What they saw.
    """

    tenant: str
    key: str
    urls: Sequence[str]
    targets: Mapping[str, str]
    chance: random.Random
    record: Record = field(default_factory=Record)

    async def rest(self, posts: Sequence[Post], *, until: asyncio.Event) -> None:
        """Asks the gateways, one request after another."""
        head = {"authorization": f"Bearer {self.key}"}
        async with httpx.AsyncClient(headers=head, timeout=PATIENCE_SECONDS) as client:
            while not until.is_set():
                await self.post(client, self.chance.choice(posts))

    async def post(self, client: httpx.AsyncClient, post: Post) -> httpx.Response | None:
        """Asks once; a broken connection is no answer."""
        name = self._name()
        url = self.chance.choice(self.urls) + post.path
        try:
            answer = await client.post(url, json=post.body, headers={"x-request-id": name})
            if answer.status_code == httpx.codes.OK:
                self.record.answers.append(Answer(name, False, post.read(answer.text)))
                return answer
        except (httpx.TransportError, ValueError):
            await asyncio.sleep(_BREAK_SECONDS)
            return None
        self.record.refused += answer.status_code == httpx.codes.TOO_MANY_REQUESTS
        await asyncio.sleep(_BREAK_SECONDS)
        return answer

    async def direct(self, *, until: asyncio.Event) -> None:
        """Asks the services, one request after another."""
        # A retry of the channel's would be a request that nobody wrote down.
        options = (("grpc.enable_retries", 0),)
        channels = {
            name: grpc.aio.insecure_channel(target, options=options)
            for name, target in self.targets.items()
        }
        try:
            while not until.is_set():
                kind = DIRECT[self.chance.choice(tuple(DIRECT))]
                name = self._name()
                with suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        await self._call(
                            kind.run(channels[kind.service], bearer(self.key, name)), name
                        )
        finally:
            for channel in channels.values():
                await channel.close()

    async def _call(self, call: Any, name: str) -> None:
        try:
            usage = await call
        except grpc.aio.AioRpcError as error:
            self.record.refused += error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            await asyncio.sleep(_BREAK_SECONDS)
        else:
            units = asdict(units_of(usage_from_proto(usage)))
            self.record.answers.append(Answer(name, True, units))

    def _name(self) -> str:
        name = f"{self.tenant}-{len(self.record.asked)}"
        self.record.asked.append(name)
        return name
