"""`Idempotency-Key` over REST: every endpoint runs once and gives its answer again."""

import asyncio
import io
import json
import math
import wave
from dataclasses import replace

import httpx
import pytest
from sqlalchemy import func, select

from atrium_gateway.api.keyed import KeyedRoute
from atrium_gateway.api.routes import PATHS
from atrium_gateway.idempotency.tables import idempotency_keys
from atrium_gateway.quota.limits import Limit, Unit, Window

CHAT = "/v1/chat/completions"
SAID = {"messages": [{"role": "user", "content": "hello there"}]}
SLOW = {**SAID, "model": "fake-slow"}


def tone(seconds):
    """A WAV with something to hear, for a voice."""
    file = io.BytesIO()
    wave_of = [int(12_000 * math.sin(2 * math.pi * at / 80)) for at in range(80)]
    cycle = b"".join(sample.to_bytes(2, "little", signed=True) for sample in wave_of)
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(cycle * (seconds * 16_000 // 80))
    return file.getvalue()


def keyed(key):
    return {"idempotency-key": key}


def code(reply):
    body = reply.json()
    return body["error"]["code"] if "error" in body else body["code"]


CASES = {
    "chat": lambda *_: (CHAT, {"json": SAID}),
    "chat streamed": lambda *_: (CHAT, {"json": {**SAID, "stream": True}}),
    "completion": lambda *_: ("/v1/completions", {"json": {"prompt": "hello"}}),
    "completion streamed": lambda *_: (
        "/v1/completions",
        {"json": {"prompt": "hello", "stream": True}},
    ),
    "embeddings": lambda *_: ("/v1/embeddings", {"json": {"input": ["one", "two"]}}),
    "transcription": lambda wav, _: (
        "/v1/audio/transcriptions",
        {"files": {"file": ("a.wav", wav)}, "data": {"response_format": "verbose_json"}},
    ),
    "transcription streamed": lambda wav, _: (
        "/v1/audio/transcriptions",
        {"files": {"file": ("a.wav", wav)}, "data": {"stream": "true"}},
    ),
    "translation": lambda wav, _: (
        "/v1/audio/translations",
        {"files": {"file": ("a.wav", wav)}, "data": {"response_format": "srt"}},
    ),
    "speech to text": lambda wav, _: ("/api/speech-to-text?model=fake-whisper", {"content": wav}),
    "speech": lambda *_: ("/v1/audio/speech", {"json": {"input": "Say it.", "voice": "alloy"}}),
    "speech streamed": lambda *_: (
        "/v1/audio/speech",
        {"json": {"input": "Say it.", "voice": "alloy", "stream_format": "sse"}},
    ),
    "text to speech": lambda *_: ("/api/text-to-speech", {"json": {"text": "Say it."}}),
    "pictures": lambda *_: ("/v1/images/generations", {"json": {"prompt": "a", "size": "64x64"}}),
    "edits": lambda _, png: (
        "/v1/images/edits",
        {"data": {"prompt": "b"}, "files": {"image": ("a.png", png, "image/png")}},
    ),
    "text to image": lambda *_: (
        "/api/text-to-image",
        {"json": {"prompt": "a"}, "headers": {"accept": "image/png"}},
    ),
    "text to image streamed": lambda *_: ("/api/text-to-image?stream=1", {"json": {"prompt": "a"}}),
    "image to image": lambda _, png: (
        "/api/image-to-image",
        {"data": {"prompt": "b"}, "files": {"image": ("a.png", png, "image/png")}},
    ),
    "image to text": lambda _, png: (
        "/api/image-to-text",
        {"files": {"file": ("a.png", png, "image/png")}},
    ),
    "ocr": lambda _, png: ("/api/ocr", {"content": png, "headers": {"content-type": "image/png"}}),
    "voices": lambda *_: (
        "/api/voices",
        {"data": {"name": "Mine", "consent": "true"}, "files": {"file": ("me.wav", tone(8))}},
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_repeat_gets_the_first_answer_and_costs_nothing(rest, recording, picture, case):
    path, asked = CASES[case](recording, picture())
    tenant = f"idempotent-{case.replace(' ', '-')}"
    headers = asked.pop("headers", {}) | keyed("once")
    async with rest.client(await rest.key(tenant)) as client:
        first = await client.post(path, headers=headers, **asked)
        again = await client.post(path, headers=headers, **asked)
        other = await client.post(f"{path}{'&' if '?' in path else '?'}x=1", headers=headers)
    assert first.is_success, first.text
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    kept = ("content-type", "x-atrium-id", "x-atrium-voice", "x-atrium-seed", "cache-control")
    for name in kept:
        assert again.headers.get(name) == first.headers.get(name)
    assert "x-ratelimit-limit-requests" not in again.headers
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert (other.status_code, code(other)) == (422, "idempotency_key_reused")
    events = await rest.events(tenant)
    assert sum(event.totals.requests for event in events) == 1


async def test_the_cases_are_every_post():
    covered = {CASES[case](b"", b"")[0].partition("?")[0] for case in CASES}
    posts = {path.path for path in PATHS if path.method == "POST"}
    # What administers is tried by its own tests; its requests go the same way.
    assert covered >= {path for path in posts if path.startswith("/v1/")}


async def test_the_route_and_the_description_of_every_post_know_the_key(rest):
    async with httpx.AsyncClient(base_url=rest.url) as client:
        page = (await client.get("/openapi.json")).json()
    for path in PATHS:
        described = page["paths"][path.path.replace(":path", "")][path.method.lower()]
        names = [parameter["name"] for parameter in described.get("parameters", ())]
        assert ("Idempotency-Key" in names) is (path.method == "POST"), path
    assert issubclass(KeyedRoute, object)


async def test_without_a_key_nothing_is_kept(rest):
    async def rows():
        async with rest.core.answers._engine.connect() as connection:
            return await connection.scalar(select(func.count()).select_from(idempotency_keys))

    before = await rows()
    async with rest.client(await rest.key("idempotent-none")) as client:
        for _ in range(2):
            assert (await client.post(CHAT, json=SAID)).status_code == 200
    assert await rows() == before
    assert len(await rest.events("idempotent-none")) == 2


async def test_another_tenants_key_is_another_key(rest):
    seen = []
    for tenant in ("idempotent-a", "idempotent-b"):
        async with rest.client(await rest.key(tenant)) as client:
            seen.append(await client.post(CHAT, json=SAID, headers=keyed("shared")))
    assert seen[0].json()["id"] != seen[1].json()["id"]
    assert "idempotency-replayed" not in seen[1].headers


async def test_a_request_in_flight_is_waited_for_and_then_replayed(rest):
    async with rest.client(await rest.key("idempotent-flight")) as client:
        asked = {"json": {**SLOW, "stream": True}, "headers": keyed("flight")}
        async with client.stream("POST", CHAT, **asked) as first:
            lines = first.aiter_raw()
            body = await anext(lines)
            early = await client.post(CHAT, **asked)
            body += b"".join([line async for line in lines])
        late = await client.post(CHAT, **asked)
    assert (early.status_code, code(early)) == (409, "idempotency_request_in_flight")
    assert int(early.headers["retry-after"]) == 1
    assert early.headers["x-should-retry"] == "true"
    assert late.content == body
    assert late.content.endswith(b"data: [DONE]\n\n")
    assert len(await rest.events("idempotent-flight")) == 1


async def test_of_fifty_at_once_exactly_one_runs(rest):
    async with rest.client(await rest.key("idempotent-fifty")) as client:
        asked = [client.post(CHAT, json=SAID, headers=keyed("fifty")) for _ in range(50)]
        replies = await asyncio.gather(*asked)
        last = await client.post(CHAT, json=SAID, headers=keyed("fifty"))
    ran = [r for r in replies if r.is_success and "idempotency-replayed" not in r.headers]
    assert len(ran) == 1
    assert {r.status_code for r in replies} <= {200, 409}
    assert {r.content for r in replies if r.is_success} == {ran[0].content} == {last.content}
    assert len(await rest.events("idempotent-fifty")) == 1


async def test_a_client_that_leaves_frees_its_key(rest):
    key = await rest.key("idempotent-left")
    asked = {"json": {**SLOW, "stream": True}, "headers": keyed("left")}
    async with rest.client(key) as client, client.stream("POST", CHAT, **asked) as first:
        await anext(first.aiter_raw())
    await rest.settled("idempotent-left", 1)
    async with rest.client(key) as client, asyncio.timeout(10):
        while (again := await client.post(CHAT, **asked)).status_code == 409:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert "idempotency-replayed" not in again.headers
    events = await rest.settled("idempotent-left", 2)
    assert [event.outcome for event in events] == ["cancelled", "completed"]


async def test_refusals_by_the_request_are_kept_and_others_free_the_key(rest):
    limit = Limit(selector="chat", unit=Unit.REQUESTS, window=Window.DAY, amount=1)
    async with rest.client(await rest.key("idempotent-refused", limit)) as client:

        async def ask(key, **body):
            return await client.post(CHAT, json={**SAID, **body}, headers=keyed(key))

        wrong = await ask("wrong", temperature=9)
        again = await ask("wrong", temperature=9)
        other = await ask("wrong", temperature=1)
        assert (await ask("good")).status_code == 200
        full = [await ask("full"), await ask("full", temperature=1), await ask("full")]
        assert (await ask("good")).headers["idempotency-replayed"] == "true"
        missing = [await ask("gone", model=name) for name in ("nothing", "nobody")]
    assert (wrong.status_code, again.content) == (400, wrong.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert (other.status_code, code(other)) == (422, "idempotency_key_reused")
    assert other.json()["error"]["type"] == "invalid_request_error"
    assert [reply.status_code for reply in full] == [429] * 3
    assert [reply.status_code for reply in missing] == [404] * 2


async def test_work_that_failed_runs_anew(start_rest):
    async with start_rest(llm=False, tts=False, pictures=False) as rest:
        key = await rest.key("failing")
        async with rest.client(key) as client:
            for body in (SAID, {**SAID, "temperature": 1}):
                reply = await client.post(CHAT, json=body, headers=keyed("failed"))
                assert reply.status_code == 503


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "naïve", "a\tb"])
async def test_what_is_no_key(rest, key):
    headers = [("idempotency-key", key.encode("latin-1"))]
    async with rest.client(await rest.key("idempotent-invalid")) as client:
        reply = await client.post(CHAT, json=SAID, headers=headers)
        twice = await client.post(CHAT, json=SAID, headers=[*keyed("a").items()] * 2)
        longest = await client.post(CHAT, json=SAID, headers=keyed("!" + "~" * 254))
    for refused in (reply, twice):
        assert (refused.status_code, code(refused)) == (400, "invalid_idempotency_key")
    assert longest.status_code == 200


async def test_a_large_answer_is_told_and_not_run_twice(rest, monkeypatch):
    bounds = replace(rest.core.answers.bounds, answer_bytes=100)
    monkeypatch.setattr(rest.core.answers, "bounds", bounds)
    async with rest.client(await rest.key("idempotent-large")) as client:
        asked = {"json": {"input": "hello"}, "headers": keyed("large")}
        first = await client.post("/v1/embeddings", **asked)
        again = await client.post("/v1/embeddings", **asked)
    assert (first.status_code, len(first.content) > 100) == (200, True)
    assert (again.status_code, code(again)) == (409, "idempotency_answer_not_kept")
    assert again.headers["x-should-retry"] == "false"
    assert len(await rest.events("idempotent-large")) == 1


async def test_logs_and_metrics_tell_of_replays(rest, until):
    def count(outcome):
        name, labels = "atrium_idempotent_requests_total", {"outcome": outcome}
        return rest.registry.get_sample_value(name, labels) or 0.0

    before = count("replayed"), count("kept")
    async with rest.client(await rest.key("idempotent-seen")) as client:
        for name in ("first", "again"):
            headers = {**keyed("seen"), "x-request-id": f"idempotent-{name}"}
            await client.post(CHAT, json=SAID, headers=headers)
    assert (count("replayed"), count("kept")) == (before[0] + 1, before[1] + 1)
    await until(lambda: b"idempotent-again" in rest.log.getvalue())
    lines = [json.loads(line) for line in rest.log.getvalue().splitlines()]
    told = {line["request_id"]: line.get("replayed") for line in lines}
    assert told["idempotent-first"] is None
    assert told["idempotent-again"] is True


async def test_browsers_may_send_the_key_and_see_the_replay(rest):
    async with httpx.AsyncClient(base_url=rest.url) as client:
        asked = {
            "origin": "https://app.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "idempotency-key",
        }
        preflight = await client.options(CHAT, headers=asked)
        plain = await client.get("/health/live", headers={"origin": "https://app.example"})
    assert preflight.status_code == 200
    assert "idempotency-key" in preflight.headers["access-control-allow-headers"]
    assert "idempotency-replayed" in plain.headers["access-control-expose-headers"]


async def test_a_secret_is_shown_once_and_made_once(rest):
    owner = await rest.key("idempotent-secret", roles=("owner",))
    async with rest.client(owner) as client:
        asked = {"json": {"name": "new"}, "headers": keyed("secret")}
        made = await client.post("/api/keys", **asked)
        again = await client.post("/api/keys", **asked)
        listed = (await client.get("/api/keys")).json()["keys"]
        token = {"json": {"scopes": ["chat"]}, "headers": keyed("token")}
        tokens = [await client.post("/api/tokens", **token) for _ in range(2)]
    assert made.status_code == 201
    assert (again.status_code, code(again)) == (409, "idempotency_answer_not_kept")
    assert [key["name"] for key in listed].count("new") == 1
    # Minting changes nothing: who lost a token gets another.
    assert [reply.status_code for reply in tokens] == [201, 201]
    assert "idempotency-replayed" not in tokens[1].headers
