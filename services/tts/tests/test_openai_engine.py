"""The OpenAI-compatible engine against a real HTTP server that behaves, or does not."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta

import numpy as np
import pytest
import pytest_asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from atrium_common.catalogue import CatalogueError, ModelEntry
from atrium_common.domain import Capability, ModelState
from atrium_common.errors import (
    AtriumError,
    InvalidArgument,
    NotFound,
    Overloaded,
    TooLarge,
    Unavailable,
)
from atrium_tts.domain import SpeakRequest
from atrium_tts.engines.base import Samples
from atrium_tts.engines.openai import OpenAIEngine

SECRET = "sk-very-secret"
Handler = Callable[[Request], Awaitable[Response]]
TONE = np.arange(-3000, 3000, 7, dtype="<i2")


def audio(*pieces: bytes, kind: str = "audio/pcm", length: int | None = None) -> Handler:
    """Makes a handler that sends pieces; with a `length` that may not be theirs."""

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
            await asyncio.sleep(0.01)

    async def handle(request: Request) -> Response:
        headers = {} if length is None else {"content-length": str(length)}
        return StreamingResponse(body(), media_type=kind, headers=headers)

    return handle


def refuses(status: int, *, headers: dict[str, str] | None = None, **error: object) -> Handler:
    """Makes a handler that answers with an error whose text holds the key."""
    body = {"error": {"message": f"no good, {SECRET}", "type": "x", **error}}

    async def handle(request: Request) -> Response:
        return JSONResponse(body, status_code=status, headers=headers)

    return handle


class Provider:
    """A server that plays OpenAI.

    Attributes:
        handle: Answers the next requests.
        bodies: What was asked, in order.
        left: Set when a caller closed an endless stream.
    """

    def __init__(self) -> None:
        self.handle: Handler = audio(TONE.tobytes())
        self.bodies: list[dict[str, object]] = []
        self.keys: list[str] = []
        self.left = asyncio.Event()
        self.url = ""

    async def answer(self, request: Request) -> Response:
        self.bodies.append(json.loads(await request.body()))
        self.keys.append(request.headers["authorization"])
        return await self.handle(request)

    async def endless(self, request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield bytes(480)
                    await asyncio.sleep(0.005)
            finally:
                self.left.set()

        return StreamingResponse(body(), media_type="audio/pcm")


@pytest_asyncio.fixture(loop_scope="session")
async def provider() -> AsyncIterator[Provider]:
    """A provider that answers."""
    provider = Provider()
    app = Starlette(routes=[Route("/v1/audio/speech", provider.answer, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    provider.url = f"http://127.0.0.1:{port}/v1"
    yield provider
    server.should_exit = True
    await task


def entry(url: str, id: str = "far", **options: object) -> ModelEntry:
    given = {"base_url": url, "model": "tts-x", "api_key_env": "FAR_KEY", **options}
    return ModelEntry(
        id=id,
        service="tts",
        capabilities=(Capability.SPEECH,),
        engine="openai",
        options=given,  # type: ignore[arg-type]
    )


@asynccontextmanager
async def opened(*entries: ModelEntry) -> AsyncIterator[OpenAIEngine]:
    engine = OpenAIEngine(entries)
    await engine.load()
    try:
        yield engine
    finally:
        await engine.close()


@pytest_asyncio.fixture(loop_scope="session")
async def engine(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[OpenAIEngine]:
    """The engine, with the provider as its upstream."""
    monkeypatch.setenv("FAR_KEY", SECRET)
    async with opened(entry(provider.url, follows_instructions=True)) as engine:
        yield engine


def request(engine: OpenAIEngine, **changes: object) -> SpeakRequest:
    given = {"model": "far", "voice": engine.voices()[0], "text": "Hello.", "language": "en"}
    return SpeakRequest(**{**given, **changes})  # type: ignore[arg-type]


async def drain(engine: OpenAIEngine, one: SpeakRequest) -> Samples:
    async with aclosing(engine.speak(one)) as pieces:
        return np.concatenate([piece async for piece in pieces])


async def test_audio_comes_as_samples_wherever_it_is_cut(
    engine: OpenAIEngine, provider: Provider
) -> None:
    raw = TONE.tobytes()
    provider.handle = audio(raw[:1], raw[1:4], raw[4:333], raw[333:])
    heard = await drain(engine, request(engine, text="Hi there.", speed=1.5, instructions="low"))
    assert heard.dtype == np.float32
    np.testing.assert_array_equal(heard, TONE / np.float32(32768))
    assert provider.bodies == [
        {
            "model": "tts-x",
            "input": "Hi there.",
            "voice": "alloy",
            "response_format": "pcm",
            "speed": 1.5,
            "instructions": "low",
        }
    ]
    assert provider.keys == [f"Bearer {SECRET}"]


async def test_audio_leaves_before_the_last_was_made(
    engine: OpenAIEngine, provider: Provider
) -> None:
    provider.handle = provider.endless
    async with asyncio.timeout(5), aclosing(engine.speak(request(engine))) as pieces:
        assert (await anext(pieces)).size


async def test_leaving_closes_the_connection(engine: OpenAIEngine, provider: Provider) -> None:
    provider.handle = provider.endless
    pieces = engine.speak(request(engine))
    await anext(pieces)
    assert not provider.left.is_set()
    await pieces.aclose()
    await asyncio.wait_for(provider.left.wait(), 5)


async def test_a_cancelled_task_closes_the_connection(
    engine: OpenAIEngine, provider: Provider
) -> None:
    provider.handle = provider.endless
    begun = asyncio.Event()

    async def listen() -> None:
        async with aclosing(engine.speak(request(engine))) as pieces:
            async for _ in pieces:
                begun.set()

    task = asyncio.create_task(listen())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(provider.left.wait(), 5)


@pytest.mark.parametrize(
    ("handler", "error", "reason"),
    [
        (refuses(400, code="bad_voice"), InvalidArgument, "BAD_VOICE"),
        (refuses(422), InvalidArgument, "INVALID_ARGUMENT"),
        (refuses(401), Unavailable, "PROVIDER_REFUSED"),
        (refuses(404), Unavailable, "PROVIDER_REFUSED"),
        (refuses(429, code="insufficient_quota"), Unavailable, "PROVIDER_REFUSED"),
        (refuses(429), Overloaded, "OVERLOADED"),
        (refuses(413), TooLarge, "TOO_LARGE"),
        (refuses(503), Unavailable, "PROVIDER_FAILED"),
    ],
)
async def test_errors_become_ours_without_secrets(
    engine: OpenAIEngine,
    provider: Provider,
    capsys: pytest.CaptureFixture[str],
    handler: Handler,
    error: type[AtriumError],
    reason: str,
) -> None:
    provider.handle = handler
    with pytest.raises(error) as caught:
        await drain(engine, request(engine))
    assert type(caught.value) is error
    assert caught.value.reason == reason
    assert SECRET not in caught.value.message
    assert SECRET not in capsys.readouterr().out
    assert len(provider.bodies) == 1, "trying again is the caller's choice"


async def test_it_says_when_to_come_again(engine: OpenAIEngine, provider: Provider) -> None:
    provider.handle = refuses(429, headers={"retry-after": "7"})
    with pytest.raises(Overloaded) as caught:
        await drain(engine, request(engine))
    assert caught.value.retry_after == timedelta(seconds=7)


async def test_a_refused_field_is_named(engine: OpenAIEngine, provider: Provider) -> None:
    provider.handle = refuses(400, param="input")
    with pytest.raises(InvalidArgument) as caught:
        await drain(engine, request(engine))
    assert caught.value.field == "text"


@pytest.mark.parametrize(
    "handler",
    [
        audio(bytes(1000), length=2000),  # closed midway
        audio(bytes(999)),  # ends inside a sample
        audio(),  # nothing at all
        audio(b'{"error": "x"}', kind="application/json"),
        audio(b"RIFF" + bytes(100)),  # a file, not PCM
    ],
)
async def test_a_broken_answer_is_no_success(
    engine: OpenAIEngine, provider: Provider, handler: Handler
) -> None:
    provider.handle = handler
    with pytest.raises(Unavailable) as caught:
        await drain(engine, request(engine))
    assert caught.value.reason == "PROVIDER_FAILED"


async def test_what_came_before_the_break_is_heard(
    engine: OpenAIEngine, provider: Provider
) -> None:
    provider.handle = audio(TONE.tobytes(), length=TONE.nbytes + 100)
    heard: list[Samples] = []

    async def listen() -> None:
        async for piece in engine.speak(request(engine)):
            heard.append(piece)

    with pytest.raises(Unavailable):
        await listen()
    assert sum(piece.size for piece in heard) == TONE.size


@pytest.mark.parametrize("begun", [False, True])
async def test_silence_is_cut_short(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    monkeypatch.setenv("FAR_KEY", SECRET)

    async def body() -> AsyncIterator[bytes]:
        yield bytes(100)
        await asyncio.sleep(1)

    async def handle(_: Request) -> Response:
        if not begun:
            await asyncio.sleep(1)
        return StreamingResponse(body(), media_type="audio/pcm")

    provider.handle = handle
    async with opened(entry(provider.url, timeout_seconds=0.2)) as engine:
        with pytest.raises(Unavailable, match="in time"):
            await drain(engine, request(engine))


async def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_KEY", SECRET)
    async with opened(entry("http://127.0.0.1:9/v1")) as engine:
        with pytest.raises(Unavailable, match="can't be reached") as caught:
            await drain(engine, request(engine))
    assert caught.value.retry_after


@pytest.mark.parametrize(
    ("field", "value"),
    [("seed", 1), ("temperature", 0.5), ("instructions", "whisper"), ("text", "a" * 11)],
)
async def test_what_it_cannot_do_is_refused_by_name(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, field: str, value: object
) -> None:
    monkeypatch.setenv("FAR_KEY", SECRET)
    async with opened(entry(provider.url, max_characters=10)) as engine:
        engine.check(request(engine, text="a" * 10))
        with pytest.raises(InvalidArgument) as caught:
            engine.check(request(engine, **{field: value}))
        assert caught.value.field == field
        with pytest.raises(NotFound):
            engine.check(request(engine, model="other"))
    assert provider.bodies == []


async def test_a_missing_key_fails_its_model_alone(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAR_KEY", SECRET)
    monkeypatch.delenv("NO_KEY", raising=False)
    entries = entry(provider.url), entry(provider.url, id="lost", api_key_env="NO_KEY")
    async with opened(*entries) as engine:
        far, lost = engine.models()
        assert (far.state, lost.state) == (ModelState.READY, ModelState.FAILED)
        assert "NO_KEY" in lost.detail
        await engine.verify("far")
        with pytest.raises(Unavailable):
            await engine.verify("lost")
    assert [info.state for info in engine.models()] == [ModelState.UNLOADED, ModelState.FAILED]


async def test_voices_are_openais_unless_the_catalogue_names_others(provider: Provider) -> None:
    other = entry(
        provider.url,
        id="other",
        voices=[{"id": "af_sky", "languages": ["en-us"], "gender": "female", "aliases": ["nova"]}],
        languages=["en-us", "ja"],
        sample_rate=22050,
        min_speed=1.0,
        max_speed=1.0,
    )
    engine = OpenAIEngine([entry(provider.url), other])
    voices = {
        model: [v for v in engine.voices() if v.models == (model,)] for model in ("far", "other")
    }
    assert [voice.id for voice in voices["far"]][:2] == ["alloy", "ash"]
    assert len(voices["far"]) == 11
    (sky,) = voices["other"]
    assert (sky.id, sky.languages, sky.aliases) == ("af_sky", ("en-us",), ("nova",))
    assert engine.languages("other") == ("en-us", "ja")
    assert engine.sample_rate("other") == 22050
    assert engine.speeds("other") == (1.0, 1.0)
    assert engine.speeds("far") == (0.25, 4.0)
    assert not engine.sentencewise


@pytest.mark.parametrize(
    ("option", "value"),
    [("voices", []), ("voices", [{"id": "a"}, {"id": "a"}]), ("tempo", 1), ("languages", [])],
)
def test_an_option_that_does_not_hold_is_named(option: str, value: object) -> None:
    with pytest.raises(CatalogueError, match=option):
        OpenAIEngine([entry("http://127.0.0.1:9", **{option: value})])
