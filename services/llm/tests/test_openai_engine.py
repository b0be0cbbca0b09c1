"""The OpenAI-compatible engine against a real HTTP server that behaves, or does not."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
import uvicorn
from engine_contract import chat, drain
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability, ModelState
from atrium_common.errors import (
    AtriumError,
    InvalidArgument,
    NotFound,
    Overloaded,
    Unavailable,
    Unimplemented,
)
from atrium_llm.domain import (
    ChatInput,
    ChatMessage,
    EmbeddingJob,
    FinishReason,
    GenerationJob,
    ImagePart,
    JsonSchema,
    Role,
    Sampling,
    TextInput,
    TextPart,
    Tool,
    ToolMode,
)
from atrium_llm.engines.openai import OpenAiEngine

SECRET = "sk-very-secret"
Handler = Callable[[Request], Awaitable[Response]]


def chunk(**choice: object) -> dict[str, object]:
    """Makes a chat chunk with one choice."""
    given = {"index": 0, "delta": {}, "finish_reason": None, **choice}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [given]}  # fmt: skip


def text(content: str) -> dict[str, object]:
    return chunk(delta={"content": content})


END = chunk(finish_reason="stop")
USAGE = {
    **chunk(),
    "choices": [],
    "usage": {
        "prompt_tokens": 11,
        "completion_tokens": 7,
        "total_tokens": 18,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
}


def sse(
    *chunks: object, done: bool = True, pause: float = 0.0, pause_at: int = 0, drop: bool = False
) -> Handler:
    """Makes a handler that streams chunks; a string goes out as it is.

    Args:
        chunks: What is streamed.
        done: Whether the end is told.
        pause: Seconds before each chunk from `pause_at` on.
        pause_at: Index of the first chunk that comes late.
        drop: Break the connection off behind the last chunk.
    """

    async def body() -> AsyncIterator[bytes]:
        for number, one in enumerate(chunks):
            if number >= pause_at:
                await asyncio.sleep(pause)
            data = one if isinstance(one, str) else json.dumps(one)
            yield f"data: {data}\n\n".encode()
        if drop:
            raise ConnectionResetError("as if the provider's process had died")
        if done:
            yield b"data: [DONE]\n\n"

    async def handle(request: Request) -> Response:
        return StreamingResponse(body(), media_type="text/event-stream")

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
        left: Set when a caller closed a stream early.
    """

    def __init__(self) -> None:
        self.handle: Handler = sse(text("hi"), END, USAGE)
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
                    yield f"data: {json.dumps(text('more '))}\n\n".encode()
                    await asyncio.sleep(0.005)
            finally:
                self.left.set()

        return StreamingResponse(body(), media_type="text/event-stream")


@asynccontextmanager
async def serving(provider: Provider) -> AsyncIterator[str]:
    paths = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
    app = Starlette(routes=[Route(path, provider.answer, methods=["POST"]) for path in paths])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.should_exit = True
        await task


@pytest_asyncio.fixture(loop_scope="session")
async def provider() -> AsyncIterator[Provider]:
    """A provider that answers."""
    provider = Provider()
    async with serving(provider) as url:
        provider.url = url
        yield provider


def entry(url: str, *capabilities: Capability, **options: object) -> ModelEntry:
    return ModelEntry(
        id="far",
        service="llm",
        capabilities=capabilities or (Capability.CHAT, Capability.COMPLETION),
        engine="openai",
        options={"base_url": url, "model": "gpt-x", "api_key_env": "FAR_KEY", **options},  # type: ignore[dict-item]
    )


@asynccontextmanager
async def opened(one: ModelEntry) -> AsyncIterator[OpenAiEngine]:
    engine = OpenAiEngine([one])
    await engine.load()
    try:
        yield engine
    finally:
        await engine.close()


@pytest_asyncio.fixture(loop_scope="session")
async def engine(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[OpenAiEngine]:
    """The engine, with the provider as its upstream."""
    monkeypatch.setenv("FAR_KEY", SECRET)
    async with opened(entry(provider.url)) as engine:
        yield engine


def job(source: ChatInput | TextInput | None = None, **sampling: object) -> GenerationJob:
    return GenerationJob(
        model="far",
        input=source or chat("hello"),
        sampling=Sampling(**sampling),  # type: ignore[arg-type]
    )


async def test_text_streams_and_usage_is_the_providers(
    engine: OpenAiEngine, provider: Provider
) -> None:
    provider.handle = sse(text("Hel"), text("lo"), END, USAGE)
    answer = await drain(engine, job(max_tokens=5, temperature=0.5, seed=3, stop=["x"], n=2))
    assert answer.text == "Hello"
    assert answer.finish == {0: FinishReason.STOP}
    assert all(usage.estimated for usage in answer.usages[:-1])
    assert answer.usages[0].input_tokens > 0
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens) == (11, 7, 4)
    assert not usage.estimated
    (sent,) = provider.bodies
    assert sent["model"] == "gpt-x"
    assert sent["stream_options"] == {"include_usage": True}
    wanted = {"max_tokens": 5, "temperature": 0.5, "seed": 3, "stop": ["x"], "n": 2}
    assert {name: sent[name] for name in wanted} == wanted
    assert provider.keys == [f"Bearer {SECRET}"]


async def test_a_chat_model_that_sees_gets_the_picture_where_it_stood(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAR_KEY", SECRET)
    provider.handle = sse(text("A star."), END, USAGE)
    seen = ImagePart(b"\xff\xd8\xffpicture")
    asked = ChatMessage(role=Role.USER, content=[TextPart("What?"), seen])
    async with opened(entry(provider.url, Capability.CHAT, Capability.IMAGE_TO_TEXT)) as engine:
        assert Capability.IMAGE_TO_TEXT in engine.models()[0].capabilities
        answer = await drain(engine, job(ChatInput(messages=[asked])))
    assert answer.text == "A star."
    # A caller who leaves before the provider has counted pays for the picture, too.
    assert answer.usages[0].input_tokens >= 1000
    (sent,) = provider.bodies
    assert sent["messages"][0]["content"] == [
        {"type": "text", "text": "What?"},
        {
            "type": "image_url",
            "image_url": {"url": "data:image/jpeg;base64,/9j/cGljdHVyZQ=="},
        },
    ]


async def test_without_usage_it_is_estimated_and_flagged(
    engine: OpenAiEngine, provider: Provider
) -> None:
    provider.handle = sse(text("nine char"), END)
    usage = (await drain(engine, job())).usage
    assert usage.estimated
    assert usage.output_tokens == 3
    assert usage.input_tokens > 0


async def test_tool_calls_come_whole(engine: OpenAiEngine, provider: Provider) -> None:
    def part(index: int, **fields: object) -> dict[str, object]:
        return chunk(delta={"tool_calls": [{"index": index, **fields}]})

    provider.handle = sse(
        part(0, id="a", function={"name": "f", "arguments": '{"x"'}),
        part(0, function={"arguments": ": 1}"}),
        part(1, id="b", function={"name": "g"}),
        chunk(finish_reason="tool_calls"),
        USAGE,
    )
    source = ChatInput(
        messages=chat("hi").messages, tools=[Tool(name="f")], tool_mode=ToolMode.REQUIRED
    )
    answer = await drain(engine, job(source))
    calls = [call for delta in answer.deltas for call in delta.tool_calls]
    assert [(c.id, c.name, c.arguments) for c in calls] == [
        ("a", "f", '{"x": 1}'),
        ("b", "g", "{}"),
    ]
    assert answer.finish == {0: FinishReason.TOOL_CALLS}
    assert provider.bodies[0]["tool_choice"] == "required"


async def test_logprobs_and_schema(engine: OpenAiEngine, provider: Provider) -> None:
    top = {"token": "b", "bytes": [98], "logprob": -2.0}
    one = {"token": "a", "bytes": None, "logprob": -0.5, "top_logprobs": [top]}
    provider.handle = sse(chunk(delta={"content": "a"}, logprobs={"content": [one]}), END)
    wanted = GenerationJob(
        model="far",
        input=chat("x"),
        sampling=Sampling(top_logprobs=1),
        response_format=JsonSchema({"type": "string"}),
    )
    (token,) = (await drain(engine, wanted)).logprobs[0]
    assert (token.token_bytes, token.logprob, token.top[0].token_bytes) == (b"a", -0.5, b"b")
    shape = provider.bodies[0]["response_format"]
    assert isinstance(shape, dict)
    assert shape["json_schema"]["schema"] == {"type": "string"}


async def test_completions(engine: OpenAiEngine, provider: Provider) -> None:
    given = {"index": 0, "text": " upon", "finish_reason": None,
             "logprobs": {"tokens": [" upon"], "token_logprobs": [-0.1],
                          "top_logprobs": [{" upon": -0.1, " in": -2.5}]}}  # fmt: skip
    last = {"index": 0, "text": "", "finish_reason": "length", "logprobs": None}
    provider.handle = sse({"choices": [given]}, {"choices": [last]})
    answer = await drain(engine, job(TextInput("Once"), top_logprobs=2))
    assert answer.text == " upon"
    assert answer.finish == {0: FinishReason.LENGTH}
    assert [item.token for item in answer.logprobs[0][0].top] == [" upon", " in"]
    assert (provider.bodies[0]["prompt"], provider.bodies[0]["logprobs"]) == ("Once", 2)


@pytest.mark.parametrize("name", ["top_k", "min_p", "repetition_penalty", "min_tokens"])
async def test_what_the_provider_lacks_is_refused_by_name(
    engine: OpenAiEngine, provider: Provider, name: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await drain(engine, job(**{name: 1}))
    assert caught.value.field == f"job.sampling.{name}"
    assert not provider.bodies
    async with opened(entry(provider.url, extensions=[name])) as extended:
        await drain(extended, job(**{name: 1}))
    assert provider.bodies[0][name] == 1


@pytest.mark.parametrize(
    ("handle", "kind", "retry"),
    [
        (refuses(400, param="temperature"), InvalidArgument, None),
        (refuses(422), InvalidArgument, None),
        (refuses(401), Unavailable, None),
        (refuses(403), Unavailable, None),
        (refuses(404), Unavailable, None),
        (refuses(429, headers={"retry-after": "7"}), Overloaded, timedelta(seconds=7)),
        (refuses(429, headers={"retry-after-ms": "90"}), Overloaded, timedelta(milliseconds=90)),
        (refuses(429, headers={"retry-after": "nan"}), Overloaded, timedelta(seconds=1)),
        (refuses(429, code="insufficient_quota"), Unavailable, None),
        (refuses(500), Unavailable, None),
        (refuses(503, headers={"retry-after": "2"}), Unavailable, timedelta(seconds=2)),
    ],
)
async def test_errors_become_ours_without_secrets(
    engine: OpenAiEngine,
    provider: Provider,
    handle: Handler,
    kind: type[AtriumError],
    retry: timedelta | None,
) -> None:
    provider.handle = handle
    with pytest.raises(kind) as caught:
        await drain(engine, job())
    assert type(caught.value) is kind
    assert caught.value.retry_after == retry
    assert SECRET not in caught.value.message
    assert len(provider.bodies) == 1, "the engine does not try again by itself"


async def test_a_refused_field_is_named(engine: OpenAiEngine, provider: Provider) -> None:
    provider.handle = refuses(400, param="temperature", code="out_of_range")
    with pytest.raises(InvalidArgument) as caught:
        await drain(engine, job())
    assert (caught.value.field, caught.value.reason) == ("job.sampling.temperature", "OUT_OF_RANGE")


@pytest.mark.parametrize(
    "handle",
    [
        sse(text("hi"), done=False),
        sse(text("hi")),
        sse(),
        sse(text("hi"), "{no json"),
        sse(text("hi"), {"choices": 7}),
        sse(text("hi"), {"choices": [3]}),
        sse(text("hi"), {"error": {"message": f"boom {SECRET}"}}),
    ],
    ids=["cut", "no-end", "empty", "no-json", "odd", "odder", "error-event"],
)
async def test_a_broken_stream_is_no_success(
    engine: OpenAiEngine, provider: Provider, handle: Handler
) -> None:
    provider.handle = handle
    with pytest.raises(Unavailable) as caught:
        await drain(engine, job())
    assert caught.value.reason == "PROVIDER_FAILED"
    assert SECRET not in caught.value.message


async def test_a_connection_lost_in_the_midst_is_no_defect_of_ours(
    engine: OpenAiEngine, provider: Provider
) -> None:
    provider.handle = sse(text("hi"), drop=True)
    with pytest.raises(Unavailable):
        await drain(engine, job())


@pytest.mark.parametrize("pause_at", [0, 1])
async def test_silence_is_cut_short(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, pause_at: int
) -> None:
    monkeypatch.setenv("FAR_KEY", SECRET)
    provider.handle = sse(text("hi"), END, pause=1.0, pause_at=pause_at)
    async with opened(entry(provider.url, timeout_seconds=0.2)) as engine:
        with pytest.raises(Unavailable):
            await drain(engine, job())


async def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_KEY", SECRET)
    async with opened(entry("http://127.0.0.1:1/v1")) as engine:
        with pytest.raises(Unavailable):
            await drain(engine, job())


@pytest.mark.parametrize("cancelled", [False, True])
async def test_leaving_closes_the_connection(
    engine: OpenAiEngine, provider: Provider, cancelled: bool
) -> None:
    provider.handle = provider.endless
    if cancelled:
        task = asyncio.create_task(drain(engine, job()))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        async with aclosing(engine.generate(job())) as events:
            async for event in events:
                if event.deltas:
                    break
    async with asyncio.timeout(2):
        await provider.left.wait()


async def test_embeddings_are_ordered_and_of_unit_length(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAR_KEY", SECRET)
    data = [{"index": 1, "embedding": [0.0, 2.0]}, {"index": 0, "embedding": [3.0, 4.0]}]
    reply = {"data": data, "usage": {"prompt_tokens": 5, "total_tokens": 5}}

    async def handle(request: Request) -> Response:
        return JSONResponse(reply)

    provider.handle = handle
    async with opened(entry(provider.url, Capability.EMBEDDING)) as engine:
        wanted = EmbeddingJob(model="far", inputs=[TextInput("a"), TextInput("b")], dimensions=2)
        result = await engine.embed(wanted)
        assert result.vectors == [[0.6, 0.8], [0.0, 1.0]]
        assert (result.usage.input_tokens, result.usage.estimated) == (5, False)
        assert provider.bodies[0]["dimensions"] == 2
        with pytest.raises(InvalidArgument) as caught:
            await engine.embed(EmbeddingJob(model="far", inputs=[TextInput("a")], truncate=True))
        assert caught.value.field == "truncate"
        with pytest.raises(Unavailable):
            await engine.embed(EmbeddingJob(model="far", inputs=[TextInput("a")]))


async def test_a_missing_key_fails_its_model_alone(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAR_KEY", raising=False)
    (tmp_path / "key").write_text(f"{SECRET}\n")
    without = entry(provider.url)
    with_key = entry(provider.url, api_key_env=None, api_key_file=str(tmp_path / "key"))
    engine = OpenAiEngine([without, with_key.model_copy(update={"id": "near"})])
    await engine.load()
    states = {model.id: (model.state, model.detail) for model in engine.models()}
    assert states == {
        "far": (ModelState.FAILED, "the variable FAR_KEY is not set"),
        "near": (ModelState.READY, ""),
    }
    with pytest.raises(Unavailable):
        await drain(engine, job())
    await engine.verify("near")
    assert provider.bodies[0]["max_tokens"] == 1
    await engine.close()


async def test_what_it_cannot_do_is_said(engine: OpenAiEngine) -> None:
    with pytest.raises(Unimplemented):
        await engine.count_tokens("far", TextInput("x"))
    with pytest.raises(NotFound):
        await engine.embed(EmbeddingJob(model="nowhere", inputs=[TextInput("x")]))
