"""`/v1/chat/completions`: the official client works unchanged, and the books are right."""

import asyncio

import openai
import pytest

from atrium_gateway.quota.limits import Limit, Unit, Window

HELLO = [{"role": "user", "content": "hello there"}]


async def test_answer_has_openais_shape_and_its_usage_is_the_ledgers(rest):
    client = rest.openai(await rest.key("chat-whole"))
    raw = await client.chat.completions.with_raw_response.create(
        model="gpt-4o-mini", messages=HELLO, max_tokens=9
    )
    answer = raw.parse()
    assert answer.object == "chat.completion"
    assert answer.model == "fake-chat"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.refusal is None
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 9
    (event,) = await rest.events("chat-whole")
    assert answer.id == f"chatcmpl-{event.id.replace('-', '')}"
    assert event.request_id == raw.headers["x-request-id"]
    assert event.outcome == "completed"
    assert event.totals.input_tokens == answer.usage.prompt_tokens
    assert event.totals.output_tokens == answer.usage.completion_tokens
    assert raw.headers["x-ratelimit-limit-requests"] == "100"
    assert raw.headers["x-ratelimit-remaining-requests"] == "99"


async def test_stream_adds_up_to_the_same_answer(rest):
    client = rest.openai(await rest.key("chat-stream"))
    whole = await client.chat.completions.create(model="fake-chat", messages=HELLO, max_tokens=20)
    text, usage, finish = "", None, None
    stream = await client.chat.completions.create(
        model="fake-chat",
        messages=HELLO,
        max_tokens=20,
        stream=True,
        stream_options={"include_usage": True},
    )
    first = None
    async for chunk in stream:
        first = first or chunk
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
            finish = chunk.choices[0].finish_reason or finish
        usage = chunk.usage or usage
    assert first.choices[0].delta.role == "assistant"
    assert text == whole.choices[0].message.content
    assert finish == whole.choices[0].finish_reason
    assert usage == whole.usage
    events = await rest.events("chat-stream")
    assert [event.totals.output_tokens for event in events] == [16, 16]


async def test_stream_without_include_usage_has_none_and_ends_with_done(rest, sse):
    async with rest.client(await rest.key("chat-plain")) as client:
        reply = await client.post(
            "/v1/chat/completions", json={"messages": HELLO, "stream": True, "max_tokens": 3}
        )
    events = sse(reply.text)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert events[-1] == "[DONE]"
    assert all("usage" not in event for event in events[:-1])


async def test_events_of_a_stream_have_one_shape(rest, sse):
    asked = {"messages": HELLO, "stream": True, "max_tokens": 20, "n": 2}
    asked["stream_options"] = {"include_usage": True}
    async with rest.client(await rest.key("chat-shape")) as client:
        reply = await client.post("/v1/chat/completions", json=asked)
    *told, last, _ = sse(reply.text)
    assert len({tuple(event) for event in (*told, last)}) == 1
    assert all(event["usage"] is None for event in told)
    assert {tuple(event["choices"][0]) for event in told} == {
        ("index", "delta", "logprobs", "finish_reason")
    }
    texts = {0: "", 1: ""}
    for event in told:
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    whole = await rest.openai(await rest.key("chat-shape")).chat.completions.create(
        model="fake-chat", messages=HELLO, max_tokens=20, n=2
    )
    assert texts == {choice.index: choice.message.content for choice in whole.choices}


async def test_choices_logprobs_and_stop(rest):
    client = rest.openai(await rest.key("chat-n"))
    answer = await client.chat.completions.create(
        model="fake-chat", messages=HELLO, max_tokens=4, n=3, logprobs=True, top_logprobs=2
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for choice in answer.choices:
        assert len(choice.logprobs.content) == 4
        assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)
    assert answer.usage.completion_tokens == 12
    word = answer.choices[0].message.content.split()[2]
    cut = await client.chat.completions.create(
        model="fake-chat", messages=HELLO, max_tokens=16, stop=word
    )
    assert word not in cut.choices[0].message.content
    assert cut.choices[0].finish_reason == "stop"


async def test_an_answer_of_ours_may_be_sent_back(rest):
    client = rest.openai(await rest.key("chat-back"))
    first = await client.chat.completions.create(model="fake-chat", messages=HELLO, max_tokens=4)
    second = await client.chat.completions.create(
        model="fake-chat",
        messages=[*HELLO, first.choices[0].message, {"role": "user", "content": "go on"}],
        max_tokens=4,
        user="someone",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        safety_identifier="x",
        prompt_cache_key="y",
    )
    assert second.usage.prompt_tokens > first.usage.prompt_tokens


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"functions": []}, "functions", "unknown_parameter"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "unknown_parameter"),
        ({"max_tokens": "many"}, "max_tokens", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"store": True}, "store", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "king", "content": ""}]}, "messages[0].role", "invalid_value"),
        (
            {"messages": [{"role": "user", "content": "a", "color": 1}]},
            "messages[0].color",
            "unknown_parameter",
        ),
        (
            {"messages": [{"role": "user"}]},
            "messages[0].content",
            "missing_required_parameter",
        ),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_argument"),
        ({"stream_options": {}}, "stream_options", "invalid_argument"),
        ({"max_tokens": 2, "max_completion_tokens": 3}, "max_tokens", "invalid_argument"),
        ({"model": "no-such"}, "model", "model_not_found"),
        ({"model": "fake-embedding"}, "model", "model_not_found"),
    ],
)
async def test_what_is_wrong_is_named_and_costs_nothing(rest, body, param, code):
    async with rest.client(await rest.key("chat-wrong")) as client:
        reply = await client.post("/v1/chat/completions", json={"messages": HELLO} | body)
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["param"], error["code"]) == (param, code)
    assert reply.status_code == (404 if code == "model_not_found" else 400)
    assert await rest.events("chat-wrong") == []


async def test_error_classes_of_the_client(rest):
    good = rest.openai(await rest.key("chat-classes"))
    with pytest.raises(openai.NotFoundError) as missing:
        await good.chat.completions.create(model="nope", messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        await good.chat.completions.create(model="fake-chat", messages=HELLO, temperature=9)
    for bad in ("atr_aaaaaaaaaaaa_" + "a" * 52, "x", rest.token("chat-classes") + "x"):
        with pytest.raises(openai.AuthenticationError):
            await rest.openai(bad).chat.completions.create(model="fake-chat", messages=HELLO)


async def test_edge_of_a_limit_admits_exactly_that_many(rest):
    limit = Limit("chat", Unit.REQUESTS, Window.HOUR, 7)
    client = rest.openai(await rest.key("chat-edge", limit))

    async def ask():
        try:
            await client.chat.completions.create(model="fake-chat", messages=HELLO, max_tokens=2)
        except openai.RateLimitError as error:
            return error
        return None

    refusals = [error for error in await asyncio.gather(*(ask() for _ in range(20))) if error]
    assert len(refusals) == 13
    error = refusals[0]
    assert error.code == "rate_limit_exceeded"
    assert error.type == "rate_limit_error"
    headers = error.response.headers
    assert int(headers["retry-after"]) >= 1
    assert int(headers["retry-after-ms"]) >= 1
    assert headers["x-ratelimit-limit-requests"] == "7"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert len(await rest.events("chat-edge")) == 7


async def test_exhausted_quota_is_not_retried(rest):
    limit = Limit("chat", Unit.REQUESTS, Window.MONTH, 0)
    client = rest.openai(await rest.key("chat-spent", limit))
    with pytest.raises(openai.RateLimitError) as refused:
        await client.chat.completions.create(model="fake-chat", messages=HELLO)
    assert refused.value.code == "insufficient_quota"
    assert refused.value.response.headers["x-should-retry"] == "false"


async def test_open_ended_answer_is_capped_to_what_a_token_limit_leaves(rest):
    limit = Limit("chat", Unit.TOKENS, Window.HOUR, 10)
    client = rest.openai(await rest.key("chat-tokens", limit))
    answer = await client.chat.completions.create(model="fake-chat", messages=HELLO)
    assert answer.usage.total_tokens == 10
    assert answer.choices[0].finish_reason == "length"
    with pytest.raises(openai.RateLimitError):
        await client.chat.completions.create(model="fake-chat", messages=HELLO)
    assert len(await rest.events("chat-tokens")) == 1
