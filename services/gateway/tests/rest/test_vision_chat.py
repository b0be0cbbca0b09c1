"""Chat about pictures with the official client: answers, refusals by name, and what it costs."""

import asyncio
import base64
import json
import random
import time
from contextlib import suppress

import openai
import pytest

from atrium_common.errors import InvalidArgument
from atrium_gateway.quota.limits import Limit, Unit, Window

CLIENTS = 50


def data_url(file: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(file).decode()}"


def shown(url: str, text: str = "what is this", **image) -> dict:
    """A user's message with a picture."""
    parts = [{"type": "image_url", "image_url": {"url": url, **image}}]
    return {"role": "user", "content": [{"type": "text", "text": text}, *parts]}


@pytest.fixture
def url(picture):
    return data_url(picture(64, 48))


@pytest.fixture
def ask(rest):
    """Sends a request; gives the answer, and of an error status, param, code and message."""

    async def send(key, messages, **body):
        async with rest.client(key) as client:
            reply = await client.post("/v1/chat/completions", json={"messages": messages, **body})
        if reply.status_code == 200:
            return reply.json()
        error = reply.json()["error"]
        return reply.status_code, error["param"], error["code"], error["message"]

    return send


async def test_whole_answer(rest, url):
    client = rest.openai(await rest.key("see-whole"))
    answer = await client.chat.completions.create(
        model="gpt-4o", messages=[shown(url, detail="auto")], max_tokens=300, user="someone"
    )
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", "fake-vision")
    (choice,) = answer.choices
    assert choice.message.content.startswith("what is this - 64 x 48 pixels")
    assert (choice.finish_reason, choice.message.role) == ("stop", "assistant")
    assert choice.message.tool_calls is None
    # Sixteen for the picture, three for the question.
    assert answer.usage.prompt_tokens == 19
    assert answer.usage.completion_tokens == len(choice.message.content.split())
    assert answer.usage.total_tokens == 19 + answer.usage.completion_tokens
    (event,) = await rest.events("see-whole")
    assert (event.capability, event.model, event.totals.images) == (
        "image-to-text",
        "fake-vision",
        1,
    )
    assert event.totals.input_tokens == 19
    assert event.id.replace("-", "") == answer.id.removeprefix("chatcmpl-")
    assert event.totals.cost == 1


async def test_streamed_answer_is_the_whole_one_and_tells_its_usage(rest, url):
    client = rest.openai(await rest.key("see-stream"))
    asked = {"model": "fake-vision", "messages": [shown(url)], "max_tokens": 5}
    whole = await client.chat.completions.create(**asked)
    stream = await client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] == whole.choices[0].finish_reason == "length"
    assert set(reasons[:-1]) == {None}
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert len(chunks) > 5  # word by word
    assert {event.outcome for event in await rest.events("see-stream")} == {"completed"}


async def test_stream_ends_with_done_and_without_usage_nobody_asked_for(rest, url, sse):
    async with rest.client(await rest.key("see-plain")) as client:
        reply = await client.post(
            "/v1/chat/completions", json={"messages": [shown(url)], "stream": True}
        )
    events = sse(reply.text)
    assert events[-1] == "[DONE]"
    assert all("usage" not in event for event in events[:-1])


async def test_what_was_said_before_and_instructions_reach_the_model(rest, url, ask):
    key = await rest.key("see-history")
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "developer", "content": [{"type": "text", "text": "and short"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "an answer"},
        {"role": "user", "content": "which colour"},
    ]
    answer = await ask(key, messages, model="fake-vision")
    text = answer["choices"][0]["message"]["content"]
    assert text.startswith("which colour - 64 x 48")
    assert "after 1 turns, the last 'an answer'" in text
    assert "told 'be kind" in text
    assert "and short'" in text
    # An answer of ours may be sent back as it came.
    more = [messages[2] | {"content": [*messages[2]["content"], {"type": "text", "text": "a"}]}]
    again = [*more, answer["choices"][0]["message"], {"role": "user", "content": "sure"}]
    assert "after 1 turns" in (await ask(key, again))["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ("PNG", "png"),
        ("JPEG", "JPEG"),
        ("WEBP", "webp"),
        ("BMP", "bmp"),
        ("TIFF", "tiff"),
        ("GIF", "gif"),
        ("PNG", "jpeg"),
    ],
)
async def test_every_format_is_taken_by_its_content(rest, picture, ask, shape, kind):
    file = picture(20, 10, shape=shape)
    url = data_url(file, f"image/{kind};charset=utf-8").replace("data:", "DATA:", 1)
    answer = await ask(await rest.key("see-formats"), [shown(url)])
    assert "20 x 10 pixels" in answer["choices"][0]["message"]["content"]


async def test_a_request_that_names_no_model_gets_the_first_that_sees(rest, url, ask):
    key = await rest.key("see-default")
    assert (await ask(key, [shown(url)]))["model"] == "fake-vision"
    assert (await ask(key, [{"role": "user", "content": "hello"}]))["model"] == "fake-chat"


async def test_a_model_that_does_not_see_is_refused_and_those_that_do_are_named(rest, url, ask):
    key = await rest.key("see-blind")
    for model in ("fake-chat", "gpt-4o-mini"):
        status, param, _, message = await ask(key, [shown(url)], model=model)
        assert (status, param) == (400, "model")
        for name in ("fake-vision", "fake-slow-vision", "fake-seer"):
            assert name in message
    for model in ("no-such", "fake-embedding", "fake-ocr"):
        status, param, code, _ = await ask(key, [shown(url)], model=model)
        assert (status, param, code) == (404, "model", "model_not_found")
    assert await rest.events("see-blind") == []


async def test_a_chat_model_that_sees_answers_as_any_chat_model(rest, url, ask):
    key = await rest.key("see-llm")
    answer = await ask(
        key, [shown(url), shown(url)], model="fake-seer", n=2, stop=["nothing"], logprobs=True
    )
    assert len(answer["choices"]) == 2
    assert answer["usage"]["prompt_tokens"] == 2 * (1 + 64 + 3)
    assert answer["choices"][0]["logprobs"]["content"]
    (event,) = await rest.events("see-llm")
    assert (event.capability, event.model, event.totals.images) == ("chat", "fake-seer", 0)
    status, param, _, _ = await ask(key, [shown(data_url(b"no picture"))], model="fake-seer")
    assert (status, param) == (400, "messages[0].content[1].image_url.url")


async def test_models_that_see_are_listed_as_such(rest):
    async with rest.client(await rest.key("see-models")) as client:
        models = (await client.get("/api/models")).json()["models"]
    able = {one["id"]: one["capabilities"] for one in models}
    assert able["fake-seer"] == ["chat", "image-to-text"]
    assert able["fake-vision"] == ["image-to-text"]


TOOL = {"type": "function", "function": {"name": "look"}}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 2}, "n"),
        ({"stop": "a"}, "stop"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": -0.5}, "frequency_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"top_k": 5}, "top_k"),
        ({"min_p": 0.1}, "min_p"),
        ({"min_tokens": 5}, "min_tokens"),
        ({"tools": [TOOL]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"max_tokens": 2, "max_completion_tokens": 3}, "max_tokens"),
        ({"max_tokens": 2049}, "max_tokens"),
        ({"max_completion_tokens": 2049}, "max_completion_tokens"),
        ({"top_p": 0.5, "temperature": 0}, "top_p"),
        ({"stream_options": {}}, "stream_options"),
    ],
)
async def test_what_a_question_has_no_word_for_is_refused_by_name(rest, url, ask, body, param):
    status, found, _, message = await ask(await rest.key("see-refused"), [shown(url)], **body)
    assert (status, found) == (400, param)
    assert message.endswith(".")
    assert all(event.totals.requests == 0 for event in await rest.events("see-refused"))


async def test_what_asks_for_nothing_is_taken(rest, url):
    client = rest.openai(await rest.key("see-neutral"))
    answer = await client.chat.completions.create(
        model="fake-vision",
        messages=[shown(url)],
        n=1,
        stop=[],
        logprobs=False,
        presence_penalty=0,
        frequency_penalty=0.0,
        logit_bias={},
        tools=[],
        tool_choice="auto",
        response_format={"type": "text"},
        top_p=1,
        temperature=0.5,
        seed=3,
        store=False,
        modalities=["text"],
        extra_body={"repetition_penalty": 1.1, "min_p": 0},
    )
    assert answer.choices[0].finish_reason == "stop"


USER = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "hi"}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("before", "after", "param"),
    [
        ([ANSWER], [], "messages[0].role"),
        ([], [ANSWER], "messages[1].role"),
        ([], [{"role": "assistant", "tool_calls": [CALL]}], "messages[1].tool_calls"),
        ([], [{"role": "tool", "content": "x", "tool_call_id": "a"}], "messages[1].role"),
        ([USER | {"name": "Ann"}], [], "messages[0].name"),
        ([], [ANSWER, USER | {"content": " "}], "messages[2].content"),
        ([], [ANSWER, USER | {"content": "x" * 4001}], "messages[2].content"),
        ([{"role": "system", "content": "x" * 4001}], [], "messages[0].content"),
        ([USER, ANSWER] * 33, [], "messages"),
    ],
)
async def test_a_conversation_that_is_no_question_is_refused_where_it_is_none(
    rest, url, ask, before, after, param
):
    messages = [*before, shown(url), *after]
    status, found, _, _ = await ask(await rest.key("see-talk"), messages, model="fake-vision")
    assert (status, found) == (400, param)
    assert all(event.totals.requests == 0 for event in await rest.events("see-talk"))


async def test_one_picture_and_text_about_it(rest, url, ask):
    key = await rest.key("see-one")
    answer = await ask(key, [shown(url), ANSWER, shown(url)], model="fake-vision")
    assert answer[:2] == (400, "messages[2].content[1].image_url.url")
    silent = {"role": "user", "content": shown(url)["content"][1:]}
    assert (await ask(key, [silent]))[:2] == (400, "messages[0].content")


PLACE = "messages[0].content[1].image_url.url"


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ("data:image/png;base64,@@@", "invalid_argument"),
        ("data:image/png,abc", "invalid_argument"),
        ("data:application/pdf;base64,AAAA", "invalid_argument"),
        ("data:image/png;base64,", "invalid_media"),
        (data_url(b"no picture"), "invalid_media"),
        (data_url(b"\x89PNG\r\n\x1a\n" + b"x" * 50), "invalid_media"),
        ("https://example.com/a.png", "url_not_allowed"),
        ("file:///etc/passwd", "url_not_allowed"),
        ("nonsense", "url_not_allowed"),
    ],
)
async def test_a_picture_that_is_none_is_named_and_costs_nothing(rest, ask, bad, code):
    answer = await ask(await rest.key("see-broken"), [shown(bad)])
    assert answer[:3] == (400, PLACE, code)
    assert {event.outcome for event in await rest.events("see-broken")} <= {"refunded"}


@pytest.mark.parametrize("detail", ["low", "high"])
@pytest.mark.parametrize("model", ["fake-vision", "fake-seer"])
async def test_detail_is_the_models_own(rest, url, ask, detail, model):
    answer = await ask(await rest.key("see-detail"), [shown(url, detail=detail)], model=model)
    assert answer[:2] == (400, PLACE.removesuffix("url") + "detail")


async def test_a_photo_of_some_megabytes_fits_and_a_larger_one_is_named(rest, picture, ask):
    key = await rest.key("see-large")
    photo = picture(64, 48) + bytes((2 << 20) - 20_000)
    assert (await ask(key, [shown(data_url(photo))]))["usage"]["prompt_tokens"] == 19
    too_large = picture(64, 48) + bytes(2 << 20)
    answer = await ask(key, [shown(data_url(too_large))])
    assert answer[:2] == (413, PLACE)


async def test_a_limit_on_seeing_is_kept_and_told(rest, url):
    limit = Limit("image-to-text", Unit.REQUESTS, Window.HOUR, 3)
    client = rest.openai(await rest.key("see-limit", limit))

    async def one():
        try:
            await client.chat.completions.create(model="gpt-4o", messages=[shown(url)])
        except openai.RateLimitError as error:
            return error
        return None

    refused = [error for error in await asyncio.gather(*(one() for _ in range(8))) if error]
    assert len(refused) == 5
    assert refused[0].response.headers["x-ratelimit-limit-requests"] == "3"
    assert len(await rest.events("see-limit")) == 3


def _request(key: str, url: str) -> bytes:
    body = {"model": "fake-slow-vision", "messages": [shown(url, "word " * 200)], "stream": True}
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


async def _leave(address: str, request: bytes, *, words: int) -> int:
    """Reads until so many words came, and closes; gives how many came."""
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    read = b""
    async with asyncio.timeout(30):
        while read.count(b'"content":"') < words + 1 and (piece := await reader.read(65536)):
            read += piece
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return read.count(b'"content":"') - 1


async def test_clients_that_leave_are_charged_what_was_done(rest, until, url):
    key = await rest.key("see-leaving", unlimited=True)
    chance = random.Random(5)  # noqa: S311 - moments, not secrets
    engine = rest.seeing_engine
    await until(lambda: not engine.running)
    before = engine.steps
    told = await asyncio.gather(
        *(
            _leave(rest.url, _request(key, url), words=chance.randrange(1, 40))
            for _ in range(CLIENTS)
        )
    )
    events = await rest.settled("see-leaving", CLIENTS)
    await until(lambda: not engine.running)
    assert len(events) == CLIENTS
    assert {event.outcome for event in events} == {"cancelled"}
    assert {event.totals.images for event in events} == {1}
    assert not any(event.estimated for event in events)
    paid = [event.totals.output_tokens for event in events]
    for saw, pays in zip(sorted(told), sorted(paid), strict=True):
        assert saw <= pays < 200
    # What was done is what is paid, but for the last words, whose count crossed the leaving.
    done = engine.steps - before
    assert sum(told) <= sum(paid) <= done <= sum(paid) + 8 * CLIENTS


class Shelf:
    """A fetcher that has one file, and notes how it was asked."""

    def __init__(self, file: bytes) -> None:
        self.file = file
        self.asked: list[tuple[str, int]] = []

    async def fetch(self, url: str, *, limit: int, deadline: float) -> bytes:
        assert deadline > time.monotonic()
        self.asked.append((url, limit))
        if not url.startswith("https://files.test/"):
            raise InvalidArgument("No.", reason="URL_NOT_ALLOWED", field="image_url")
        return self.file


async def test_a_picture_is_fetched_where_the_operator_allows_it(start_rest, picture):
    shelf = Shelf(picture(30, 20))
    async with start_rest(fetcher=shelf, tts=False, pictures=False) as rest:
        client = rest.openai(await rest.key("fetching"))
        for model in ("fake-vision", "fake-seer"):
            answer = await client.chat.completions.create(
                model=model, messages=[shown("https://files.test/a.png")]
            )
            assert answer.choices[0].message.content
        assert shelf.asked[0][1] == 2 << 20
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(messages=[shown("http://other.test/")], model="")
        assert (refused.value.code, refused.value.param) == ("url_not_allowed", PLACE)
        many = [shown("https://files.test/a.png") for _ in range(17)]
        with pytest.raises(openai.BadRequestError, match="At most 16"):
            await client.chat.completions.create(messages=many, model="fake-seer")
        # A question that is refused fetches nothing.
        before = len(shelf.asked)
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(
                messages=[shown("https://files.test/a.png")], model="fake-vision", n=2
            )
        assert len(shelf.asked) == before
