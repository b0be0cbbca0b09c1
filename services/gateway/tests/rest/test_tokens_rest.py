"""`POST /api/tokens`: what a backend mints for its browsers allows no more than it has."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from websockets.asyncio.client import connect

from atrium_gateway.auth.keys import key_id_of

CHAT = {"messages": [{"role": "user", "content": "Hello"}]}


async def ask(rest, credential, path, body):
    async with rest.client(credential) as client:
        reply = await client.post(path, json=body)
    return reply.status_code, reply.json()


async def mint(rest, credential, **terms):
    return await ask(rest, credential, "/api/tokens", {"scopes": ["chat"], **terms})


async def test_a_minted_token_works_within_its_terms_alone(rest):
    key = await rest.key("tokens-terms", unlimited=True)
    status, made = await mint(
        rest, key, scopes=["chat", "usage:read"], lifetime_seconds=60, subject="ann"
    )
    assert status == 201
    assert (made["tenant"], made["subject"], made["models"]) == ("tokens-terms", "ann", None)
    left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=50) < left <= timedelta(seconds=60)
    assert (await ask(rest, made["token"], "/v1/chat/completions", CHAT))[0] == 200
    (event,) = await rest.settled("tokens-terms", 1)
    assert (event.subject, event.key_id) == ("ann", key_id_of(key))
    for path, body in (
        ("/v1/embeddings", {"input": "Hello"}),
        ("/api/tokens", {"scopes": ["chat"]}),
        ("/api/keys", {}),
    ):
        status, error = await ask(rest, made["token"], path, body)
        assert status == 403, (path, error)


async def test_a_browser_opens_a_live_session_with_it(rest):
    key = await rest.key("tokens-live")
    _, made = await mint(rest, key, scopes=["transcription"])
    url = f"{rest.url.replace('http', 'ws', 1)}/v1/realtime?intent=transcription"
    protocols = ["realtime", f"openai-insecure-api-key.{made['token']}"]
    async with connect(
        url, subprotocols=protocols, origin="https://app.example", proxy=None
    ) as socket:
        assert json.loads(await socket.recv())["type"] == "session.created"


async def test_it_ends_with_the_key_that_it_was_minted_with(rest):
    key = await rest.key("tokens-revoked", unlimited=True)
    _, made = await mint(rest, key)
    assert (await ask(rest, made["token"], "/v1/chat/completions", CHAT))[0] == 200
    await rest.core.tenants.revoke_key(key_id_of(key), now=datetime.now(UTC))
    await asyncio.sleep(1.0)
    status, error = await ask(rest, made["token"], "/v1/chat/completions", CHAT)
    assert (status, error["error"]["code"]) == (401, "invalid_api_key")


async def test_models_are_bound_by_id_or_alias(rest):
    key = await rest.key("tokens-models", unlimited=True)
    async with rest.client(key) as client:
        models = (await client.get("/v1/models")).json()["data"]
    chat = next(one for one in models if "chat" in one["capabilities"])
    other = next(one for one in models if "chat" not in one["capabilities"])
    _, made = await mint(rest, key, models=[other["id"]])
    assert made["models"] == [other["id"]]
    body = {**CHAT, "model": chat["id"]}
    status, error = await ask(rest, made["token"], "/v1/chat/completions", body)
    assert (status, error["error"]["code"]) == (403, "model_not_allowed")
    status, error = await mint(rest, key, models=["no-such-model"])
    assert (status, error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("terms", "status", "field"),
    [
        ({"scopes": []}, 400, "scopes"),
        ({"scopes": ["*"]}, 400, "scopes"),
        ({"scopes": ["keys:write"]}, 400, "scopes"),
        ({"scopes": ["tokens:write"]}, 400, "scopes"),
        ({"scopes": ["chess"]}, 400, "scopes"),
        ({"lifetime_seconds": 0}, 400, "lifetime_seconds"),
        ({"lifetime_seconds": 3601}, 400, "lifetime_seconds"),
        ({"subject": ""}, 400, "subject"),
        ({"roles": ["owner"]}, 400, "roles"),
    ],
    ids=str,
)
async def test_terms_that_no_client_token_has_are_refused_by_field(rest, terms, status, field):
    key = await rest.key("tokens-wrong")
    found, error = await mint(rest, key, **terms)
    assert (found, error["field"].split("[")[0]) == (status, field)


async def test_nobody_mints_more_than_they_have(rest):
    await rest.key("tokens-above")
    narrow = rest.token("tokens-above", scopes=frozenset({"chat", "tokens"}))
    assert (await mint(rest, narrow))[0] == 201
    for terms, field in (({"scopes": ["ocr"]}, "scopes"), ({"subject": "another"}, "subject")):
        status, error = await mint(rest, narrow, **terms)
        assert (status, error["code"], error["field"]) == (403, "above_caller", field)
    viewer = rest.token("tokens-above", roles=frozenset({"viewer"}))
    assert (await mint(rest, viewer, scopes=["usage:read"]))[1]["code"] == "role_missing"
    short = rest.token("tokens-above")
    _, made = await mint(rest, short, lifetime_seconds=3600)
    left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert left <= timedelta(minutes=5)
