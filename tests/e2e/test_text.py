"""Chat and embeddings with a real model, through both doors, with the bill checked."""

import asyncio
import json
import random
from typing import Any

import grpc
import httpx
import pytest
from openai import APIStatusError, AsyncOpenAI, RateLimitError

from atrium.llm.v1 import llm_pb2, llm_pb2_grpc
from tests.kit.suite import Suite

MODEL = "smollm2-135m-instruct"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]

pytestmark = pytest.mark.model


async def totals(rest: httpx.AsyncClient) -> dict[str, Any]:
    """What the ledger says that the tenant consumed."""
    answer = await rest.get("/api/usage")
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()["totals"]
    return found


async def events(rest: httpx.AsyncClient) -> list[dict[str, Any]]:
    """The tenant's single records, newest first."""
    answer = await rest.get("/api/usage/events")
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


async def test_chat_answers_right_and_its_usage_is_the_ledgers(
    client: AsyncOpenAI, rest: httpx.AsyncClient
) -> None:
    answer = await client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=40, temperature=0
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    told = (answer.usage.prompt_tokens, answer.usage.completion_tokens)

    sums = await totals(rest)
    (event,) = await events(rest)
    assert (sums["requests"], sums["input_tokens"], sums["output_tokens"]) == (1, *told)
    assert event["outcome"] == "completed"
    assert (event["totals"]["input_tokens"], event["totals"]["output_tokens"]) == told


async def test_a_streamed_chat_says_the_same(client: AsyncOpenAI, rest: httpx.AsyncClient) -> None:
    asked = {"model": MODEL, "messages": QUESTION, "max_tokens": 24, "temperature": 0}
    whole = await client.chat.completions.create(**asked)
    text, usage, reasons = "", None, []
    stream = await client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
    assert text == whole.choices[0].message.content
    assert reasons == [whole.choices[0].finish_reason]
    assert usage == whole.usage
    sums = await totals(rest)
    assert sums["requests"] == 2
    assert sums["output_tokens"] == 2 * whole.usage.completion_tokens


async def test_json_schema_output_is_valid(client: AsyncOpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "large": {"type": "boolean"}},
        "required": ["city", "large"],
        "additionalProperties": False,
    }
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Describe Paris as JSON."}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "city", "schema": schema, "strict": True},
        },
        max_tokens=80,
        seed=1,
    )
    described = json.loads(answer.choices[0].message.content or "")
    assert isinstance(described["city"], str)
    assert isinstance(described["large"], bool)


async def test_embeddings_know_what_is_alike(client: AsyncOpenAI, rest: httpx.AsyncClient) -> None:
    answer = await client.embeddings.create(
        model="all-minilm-l6-v2",
        input=["a cat sleeps on the sofa", "a kitten naps on the couch", "interest rates rose"],
    )
    cat, kitten, rates = (item.embedding for item in answer.data)

    def alike(left: list[float], right: list[float]) -> float:
        return sum(a * b for a, b in zip(left, right, strict=True))

    assert len(cat) == 384
    assert alike(cat, cat) == pytest.approx(1, abs=1e-3)
    assert alike(cat, kitten) > 0.5 > alike(cat, rates) + 0.2
    assert (await totals(rest))["input_tokens"] == answer.usage.prompt_tokens


async def test_grpc_gives_the_same_answer_on_the_same_bill(
    suite: Suite, key: str, client: AsyncOpenAI, rest: httpx.AsyncClient
) -> None:
    by_rest = await client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=24, temperature=0
    )
    job = llm_pb2.GenerationJob(
        model=MODEL,
        chat=llm_pb2.ChatInput(
            messages=[
                llm_pb2.ChatMessage(
                    role=llm_pb2.ROLE_USER,
                    content=[llm_pb2.ContentPart(text=QUESTION[0]["content"])],
                )
            ]
        ),
        sampling=llm_pb2.SamplingParams(max_tokens=24, temperature=0),
    )
    metadata = (("authorization", f"Bearer {key}"),)
    async with grpc.aio.insecure_channel(suite.target("llm")) as channel:
        stub = llm_pb2_grpc.TextGenerationServiceStub(channel)
        by_grpc = await stub.GenerateText(llm_pb2.GenerateTextRequest(job=job), metadata=metadata)
        forged = (("authorization", f"Bearer {key}x"),)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GenerateText(llm_pb2.GenerateTextRequest(job=job), metadata=forged)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert by_grpc.choices[0].text == by_rest.choices[0].message.content
    sums = await totals(rest)
    assert sums["requests"] == 2
    assert sums["output_tokens"] == 2 * by_grpc.usage.output_tokens
    methods = {event["method"] for event in await events(rest)}
    assert "/atrium.llm.v1.TextGenerationService/GenerateText" in methods


async def test_whoever_leaves_pays_for_what_was_produced(
    client: AsyncOpenAI, rest: httpx.AsyncClient
) -> None:
    """Leaves at random moments; the bill is never more than a few steps past the last token."""
    rng = random.Random(7)  # noqa: S311 - moments to leave at, not secrets
    seen = []
    for _ in range(12):
        leave_after = rng.randrange(1, 30)
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Count from one to two hundred."}],
            max_tokens=400,
            temperature=0,
            stream=True,
        )
        got = 0
        async for chunk in stream:
            got += bool(chunk.choices and chunk.choices[0].delta.content)
            if got >= leave_after:
                break
        await stream.close()
        seen.append(got)
    for _ in range(100):
        records = await events(rest)
        if len(records) == len(seen):
            break
        await asyncio.sleep(0.1)
    assert [record["outcome"] for record in records] == ["cancelled"] * len(seen)
    billed = [record["totals"]["output_tokens"] for record in reversed(records)]
    for got, tokens in zip(seen, billed, strict=True):
        assert got <= tokens <= got + 12


async def test_the_limit_admits_exactly_its_amount(
    suite: Suite, tenant: str, client: AsyncOpenAI, rest: httpx.AsyncClient
) -> None:
    suite.atrium(
        *("tenant", "limit", tenant, "--capability", "chat"),
        *("--unit", "requests", "--window", "hour", "--amount", "5"),
    )
    await asyncio.sleep(1.2)

    outcomes = await asyncio.gather(
        *(
            client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=4)
            for _ in range(12)
        ),
        return_exceptions=True,
    )
    refusals = [outcome for outcome in outcomes if isinstance(outcome, RateLimitError)]
    assert len(refusals) == 7
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 5
    for refusal in refusals:
        assert refusal.response.headers["x-ratelimit-limit-requests"] == "5"
        assert refusal.response.headers["x-ratelimit-remaining-requests"] == "0"
        assert int(refusal.response.headers["retry-after"]) > 0
    assert (await totals(rest))["requests"] == 5


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "gpt-17"}, 404, "model"),
        ({"extra_body": {"speed": 3}}, 400, "speed"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"temperature": 9}, 400, "temperature"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "word " * 20_000}]}, 400, "messages"),
    ],
)
async def test_bad_input_is_named_and_costs_nothing(
    client: AsyncOpenAI,
    rest: httpx.AsyncClient,
    change: dict[str, object],
    status: int,
    param: str,
) -> None:
    asked = {"model": MODEL, "messages": QUESTION, "max_tokens": 4} | change
    with pytest.raises(APIStatusError) as refused:
        await client.chat.completions.create(**asked)  # type: ignore[call-overload]
    assert refused.value.status_code == status
    assert refused.value.param == param
    sums = await totals(rest)
    assert (sums["input_tokens"], sums["output_tokens"], sums["cost"]) == (0, 0, "0")
