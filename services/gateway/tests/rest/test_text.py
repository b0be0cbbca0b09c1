"""Embeddings, completions and models, with the official client."""

import pytest


async def test_embeddings_are_the_same_in_both_encodings(rest):
    client = rest.openai(await rest.key("text-embed"))
    texts = ["a cat", "a dog"]
    default = await client.embeddings.create(model="text-embedding-3-small", input=texts)
    plain = await client.embeddings.create(
        model="text-embedding-3-small", input=texts, encoding_format="float"
    )
    assert [item.embedding for item in default.data] == [item.embedding for item in plain.data]
    assert len(default.data[0].embedding) == 8
    assert default.usage.total_tokens == 4
    assert [event.totals.input_tokens for event in await rest.events("text-embed")] == [4, 4]


async def test_as_many_inputs_as_the_official_client_sends(rest):
    client = rest.openai(await rest.key("text-wide"))
    texts = [f"text {number}" for number in range(2048)]
    answer = await client.embeddings.create(model="fake-wide", input=texts)
    assert [item.index for item in answer.data] == list(range(2048))
    assert {len(item.embedding) for item in answer.data} == {1536}
    assert answer.usage.total_tokens == 2 * 2048
    for number in (0, 650, 651, 1302, 2047):
        alone = await client.embeddings.create(model="fake-wide", input=texts[number])
        assert answer.data[number].embedding == alone.data[0].embedding
    events = await rest.settled("text-wide", 6)
    assert [event.totals.input_tokens for event in events] == [2 * 2048, *[2] * 5]


async def test_a_bad_input_is_named_by_its_place_in_the_request(rest):
    texts = ["good"] * 700 + ["much " * 65]
    async with rest.client(await rest.key("text-place")) as client:
        reply = await client.post("/v1/embeddings", json={"model": "fake-wide", "input": texts})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["param"] == "input[700]"
    assert error["message"].startswith("input[700] has 65 tokens")
    (event,) = await rest.settled("text-place", 1)
    assert event.totals.input_tokens == 651


@pytest.mark.parametrize(
    ("given", "count"), [("one", 1), (["one"], 1), ([1, 2, 3], 1), ([[1, 2], [3]], 2)]
)
async def test_inputs_of_every_kind(rest, given, count):
    client = rest.openai(await rest.key("text-inputs"))
    answer = await client.embeddings.create(
        model="fake-embedding", input=given, dimensions=3, encoding_format="float"
    )
    assert len(answer.data) == count
    assert len(answer.data[0].embedding) == 3


@pytest.mark.parametrize("given", ["", [], ["a", 1], [[]], None, [""]])
async def test_inputs_that_make_no_sense(rest, given):
    async with rest.client(await rest.key("text-senseless")) as client:
        reply = await client.post("/v1/embeddings", json={"input": given})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"].startswith("input")


async def test_completion_whole_and_streamed(rest):
    client = rest.openai(await rest.key("text-complete"))
    whole = await client.completions.create(model="fake-chat", prompt="once", max_tokens=12)
    stream = await client.completions.create(
        model="fake-chat", prompt="once", max_tokens=12, stream=True
    )
    pieces = [chunk.choices[0].text async for chunk in stream]
    assert "".join(pieces) == whole.choices[0].text
    assert whole.object == "text_completion"
    assert whole.usage.completion_tokens == 12


async def test_completion_of_several_prompts(rest):
    client = rest.openai(await rest.key("text-several"))
    answer = await client.completions.create(
        model="fake-chat", prompt=["one", "two three"], n=2, max_tokens=3, logprobs=1
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage.completion_tokens == 12
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) == 3
    (event,) = await rest.events("text-several")
    assert event.totals.output_tokens == 12


async def test_completion_of_token_ids_and_echo(rest):
    client = rest.openai(await rest.key("text-tokens"))
    answer = await client.completions.create(model="fake-chat", prompt=[5, 6, 7], max_tokens=2)
    assert answer.usage.prompt_tokens == 3
    echoed = await client.completions.create(
        model="fake-chat", prompt="once upon", max_tokens=2, echo=True
    )
    assert echoed.choices[0].text.startswith("once upon")


async def test_models(rest):
    client = rest.openai(await rest.key("text-models"))
    listed = [model.id async for model in client.models.list()]
    assert listed[:4] == ["fake-chat", "fake-slow", "fake-embedding", "fake-wide"]
    assert listed[4:7] == ["fake-speech", "fake-slow-speech", "fake-whisper"]
    assert (await client.models.retrieve("gpt-4o-mini")).id == "fake-chat"
    async with rest.client(await rest.key("text-models")) as plain:
        details = (await plain.get("/api/models")).json()["models"]
    assert {model["state"] for model in details} == {"ready"}
    assert details[0]["default_for"] == ["chat", "completion"]
