"""Operators move models in and out of memory; the list tells where each one stands."""

import pytest


@pytest.fixture
async def operator(rest):
    """A client of the operator's."""
    async with rest.client(await rest.key("loading-operator", roles=("operator",))) as client:
        yield client


async def standing(client, model):
    """What the list says of a model."""
    models = (await client.get("/api/models")).json()["models"]
    return next(known for known in models if known["id"] == model)


async def test_a_model_is_unloaded_loaded_and_used_meanwhile(rest, operator):
    gone = await operator.post("/api/models/fake-whisper/unload")
    assert (gone.status_code, gone.json()["state"]) == (200, "unloaded")
    assert (await standing(operator, "fake-whisper"))["state"] == "unloaded"
    back = await operator.post("/api/models/whisper-1/load")  # by an alias
    assert back.json()["id"] == "fake-whisper"
    assert back.json()["state"] == "ready"
    again = await operator.post("/api/models/fake-whisper/load")
    assert again.json()["state"] == "ready"
    told = (await operator.get("/api/audit", params={"tenant": "*"})).json()["entries"]
    assert [entry["action"] for entry in told if entry["target"] == "fake-whisper"] == [
        "model.load",
        "model.load",
        "model.unload",
    ]


async def test_the_next_request_loads_what_was_unloaded(rest, operator):
    await operator.post("/api/models/fake-embedding/unload")
    client = rest.openai(await rest.key("loading-user"))
    await client.embeddings.create(model="fake-embedding", input="a")
    known = await standing(operator, "fake-embedding")
    assert known["state"] == "ready"
    assert known["last_used_at"]


async def test_a_busy_model_stays(rest, operator):
    client = rest.openai(await rest.key("loading-busy"))
    words = [{"role": "user", "content": "Say it."}]
    stream = await client.chat.completions.create(
        model="fake-slow", messages=words, max_tokens=400, stream=True
    )
    async for _ in stream:
        refused = await operator.post("/api/models/fake-slow/unload")
        break
    await stream.close()
    assert refused.status_code == 409
    assert refused.json()["code"] == "model_busy"


async def test_only_operators_and_only_what_there_is(rest, operator):
    async with rest.client(await rest.key("loading-owner", roles=("owner",))) as owner:
        assert (await owner.post("/api/models/fake-chat/unload")).status_code == 403
    missing = await operator.post("/api/models/nothing/load")
    assert (missing.status_code, missing.json()["code"]) == (404, "model_not_found")
