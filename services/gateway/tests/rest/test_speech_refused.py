"""Speech that is refused, breaks or is left: named errors, and only what was begun is charged."""

import asyncio
import json
from contextlib import suppress

import httpx
import openai
import pytest

from atrium_common.errors import Unavailable
from atrium_gateway.quota.limits import Limit, Unit, Window

SENTENCE = "This is a sentence of a long story that nobody hears to its end."
STORY = " ".join([SENTENCE] * 20)
BOMB = (
    '<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a "aaaaaaaaaa">'
    '<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><speak>&b;</speak>'
)
DEEP = "<speak>" + "<p>" * 300 + "a" + "</p>" * 300 + "</speak>"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "input"),
        ({"input": ""}, 400, "input"),
        ({"input": " \n\t"}, 400, "input"),
        ({"input": "a" * 10_001}, 400, "input"),
        ({"input": "a" * 1_000_000}, 400, "input"),
        ({"input": 5}, 400, "input"),
        ({"input": "a", "voice": "nobody"}, 404, "voice"),
        ({"input": "a", "voice": {"id": "nobody"}}, 404, "voice"),
        ({"input": "a", "voice": {"name": "x"}}, 400, "voice.name"),
        ({"input": "a", "model": "fake-chat"}, 404, "model"),
        ({"input": "a", "speed": 0.1}, 400, "speed"),
        ({"input": "a", "speed": 5}, 400, "speed"),
        ({"input": "a", "response_format": "ogg"}, 400, "response_format"),
        ({"input": "a", "stream_format": "ndjson"}, 400, "stream_format"),
        ({"input": "a", "model": "fake-slow-speech", "instructions": "x"}, 400, "instructions"),
        ({"input": "a", "color": "red"}, 400, "color"),
    ],
)
async def test_what_is_wrong_is_named_and_free(rest, body, status, param):
    async with rest.client(await rest.key("speech-wrong", unlimited=True)) as client:
        reply = await client.post("/v1/audio/speech", json=body)
    assert reply.status_code == status
    assert reply.json()["error"]["param"] == param
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert all(event.totals.requests == 0 for event in await rest.events("speech-wrong"))


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 400, "text"),
        ({"text": "a", "ssml": "<speak>a</speak>"}, 400, "ssml"),
        ({"text": ""}, 400, "text"),
        ({"text": "a" * 1_000_000}, 400, "text"),
        ({"ssml": BOMB}, 400, "ssml"),
        ({"ssml": DEEP}, 400, "ssml"),
        ({"ssml": "<speak>" + "<s>a</s>" * 3000 + "</speak>"}, 400, "ssml"),
        ({"ssml": "<speak>a"}, 400, "ssml"),
        ({"ssml": '<speak><audio src="file:///etc/passwd"/></speak>'}, 400, "ssml"),
        ({"text": "a", "voice": "nobody"}, 404, "voice"),
        ({"text": "a", "language": "tlh"}, 400, "language"),
        ({"text": "a", "language": "not a language"}, 400, "language"),
        ({"text": "a", "sample_rate": 1}, 400, "sample_rate"),
        ({"text": "a", "format": "opus", "sample_rate": 44_100}, 400, "sample_rate"),
        ({"text": "a", "format": "wav", "bit_rate": 64_000}, 400, "bit_rate"),
        ({"text": "a", "temperature": 0}, 400, "temperature"),
        ({"text": "a", "model": "fake-slow-speech", "seed": 1}, 400, "seed"),
        ({"text": "a", "sentence_marks": True}, 400, "sentence_marks"),
    ],
)
async def test_the_suites_own_names_them_too(rest, body, status, field):
    async with rest.client(await rest.key("speech-wrong-own", unlimited=True)) as client:
        reply = await client.post("/api/text-to-speech", json=body)
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["field"] == field
    assert all(event.totals.requests == 0 for event in await rest.events("speech-wrong-own"))


async def test_body_without_a_type_is_no_upload(rest):
    async def two_megabytes():
        for _ in range(32):
            yield b" " * 65536

    async with rest.client(await rest.key("speech-large")) as client:
        reply = await client.post("/v1/audio/speech", content=two_megabytes())
    assert reply.status_code == 413


async def test_callers_at_a_limit_of_characters(rest):
    limit = Limit("speech", Unit.CHARACTERS, Window.DAY, 3 * len(SENTENCE))
    key = await rest.key("speech-limit", limit)
    async with rest.client(key) as client:
        body = {"input": SENTENCE, "response_format": "pcm"}
        replies = await asyncio.gather(
            *(client.post("/v1/audio/speech", json=body) for _ in range(8))
        )
    assert sorted(reply.status_code for reply in replies) == [200] * 3 + [429] * 5
    for reply in replies:
        assert reply.headers["x-ratelimit-limit-characters"] == str(3 * len(SENTENCE))
        if reply.status_code == 429:
            assert reply.json()["error"]["code"] == "insufficient_quota"
            assert reply.headers["x-should-retry"] == "false"
    events = await rest.events("speech-limit")
    assert [event.totals.characters for event in events] == [len(SENTENCE)] * 3


async def test_seconds_of_audio_are_limited_and_given_back(rest):
    # Reserved are 0.15 s a character and 2 s; made are 0.05 s a character.
    limit = Limit("speech", Unit.AUDIO_SECONDS, Window.MINUTE, 15)
    client = rest.openai(await rest.key("speech-seconds", limit))
    await client.audio.speech.create(model="tts-1", voice="alloy", input=SENTENCE)
    answer = await client.audio.speech.with_raw_response.create(
        model="tts-1", voice="alloy", input="a" * 20
    )
    assert int(answer.headers["x-ratelimit-remaining-audio-seconds"]) < 8
    with pytest.raises(openai.RateLimitError) as refused:
        await client.audio.speech.create(model="tts-1", voice="alloy", input=SENTENCE * 2)
    assert refused.value.code == "insufficient_quota"  # more than any minute has room for


async def test_credential_without_the_scope(rest):
    await rest.key("speech-scope")
    async with rest.client(rest.token("speech-scope", scopes=frozenset({"chat"}))) as client:
        for method, path in (
            ("POST", "/v1/audio/speech"),
            ("POST", "/api/text-to-speech"),
            ("GET", "/api/voices"),
            ("DELETE", "/api/voices/any"),
        ):
            body = {"input": "a"} if path.startswith("/v1") else {"text": "a"}
            reply = await client.request(method, path, json=body)
            assert reply.status_code == 403


async def _leave(rest, key: str, path: str, body: dict[str, object], size: int) -> int:
    """Reads `size` bytes of an answer and hangs up; gives what was read."""
    read = 0
    async with rest.client(key) as client, client.stream("POST", path, json=body) as reply:
        with suppress(StopAsyncIteration):
            pieces = reply.aiter_raw()
            while read < size:
                read += len(await anext(pieces))
    return read


@pytest.mark.parametrize(
    ("path", "extra"),
    [
        ("/v1/audio/speech", {"input": STORY, "response_format": "pcm"}),
        ("/v1/audio/speech", {"input": STORY, "stream_format": "sse"}),
        ("/api/text-to-speech", {"text": STORY, "format": "wav"}),
        ("/api/text-to-speech", {"text": STORY, "stream": True}),
    ],
)
async def test_one_who_leaves_pays_for_what_was_begun(rest, until, path, extra):
    tenant = "speech-leaving"
    key = await rest.key(tenant, unlimited=True)
    known = len(await rest.events(tenant))
    before = rest.tts_engine.started
    await _leave(rest, key, path, {**extra, "model": "fake-slow-speech"}, 1000)
    event = (await rest.settled(tenant, known + 1))[-1]
    await until(lambda: not rest.tts_engine.streams)
    begun = rest.tts_engine.started - before
    assert event.outcome == "cancelled"
    assert 1 <= begun < 8  # two ahead of the reader at most, and the one that is spoken
    # The last word of the service may have crossed with the client's leaving.
    assert begun - 1 <= round(event.totals.characters / (len(SENTENCE) + 1)) <= begun
    assert not rest.core.admission.open_reservations
    await asyncio.sleep(0.3)
    assert rest.tts_engine.started - before == begun


async def test_leaving_before_the_first_byte(rest, until):
    key = await rest.key("speech-impatient", unlimited=True)
    body = {"input": STORY, "model": "fake-slow-speech"}
    before = rest.tts_engine.started
    async with rest.client(key) as client:
        waiting = asyncio.create_task(client.post("/v1/audio/speech", json=body))
        await until(lambda: rest.tts_engine.started > before)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
    (event,) = await rest.settled("speech-impatient", 1)
    assert event.outcome == "cancelled"
    assert event.totals.characters <= 3 * (len(SENTENCE) + 1)


@pytest.fixture
def break_after(rest, monkeypatch):
    """Makes the engine fail in the sentence with a number, from 0."""

    real = rest.tts_engine.speak

    def set_up(number: int) -> None:
        count = 0

        async def breaking(request):
            nonlocal count
            count += 1
            if count > number:
                raise Unavailable("The engine fell over.")
            async for piece in real(request):
                yield piece

        monkeypatch.setattr(rest.tts_engine, "speak", breaking)

    return set_up


async def test_failure_before_the_first_byte_is_an_error_answer(rest, break_after):
    break_after(0)
    async with rest.client(await rest.key("speech-defect")) as client:
        for shape in ("mp3", "opus", "aac", "flac", "wav", "pcm"):
            body = {"input": STORY, "response_format": shape}
            reply = await client.post("/v1/audio/speech", json=body)
            assert reply.status_code == 503
            assert reply.json()["error"]["type"] == "server_error"
        reply = await client.post("/api/text-to-speech", json={"text": STORY})
        assert reply.status_code == 503
        assert reply.json()["code"] == "unavailable"


async def test_audio_that_breaks_is_never_taken_for_the_whole(rest, break_after):
    key = await rest.key("speech-broken", unlimited=True)
    async with rest.client(key) as client:
        for number, path in enumerate(("/v1/audio/speech", "/api/text-to-speech")):
            break_after(2)
            name = "input" if path.startswith("/v1") else "text"
            body = {name: STORY, "model": "fake-slow-speech"}
            with pytest.raises(httpx.RemoteProtocolError):
                await client.post(path, json=body)
            event = (await rest.settled("speech-broken", number + 1))[-1]
            assert event.outcome == "failed"
            assert 2 <= round(event.totals.characters / (len(SENTENCE) + 1)) <= 3
    sdk = rest.openai(key)
    break_after(2)
    with pytest.raises((openai.APIError, httpx.HTTPError)):
        await sdk.audio.speech.create(model="tts-1", voice="alloy", input=STORY)


async def test_events_that_break_end_with_an_error_event(rest, sse, break_after):
    key = await rest.key("speech-broken-events", unlimited=True)
    async with rest.client(key) as client:
        break_after(2)
        body = {"input": STORY, "model": "fake-slow-speech", "stream_format": "sse"}
        reply = await client.post("/v1/audio/speech", json=body)
        *deltas, last = sse(reply.text)
        assert deltas[0]["type"] == "speech.audio.delta"
        assert last["error"]["type"] == "server_error"
        break_after(2)
        body = {"text": STORY, "model": "fake-slow-speech", "stream": True}
        reply = await client.post("/api/text-to-speech", json=body)
    last = reply.text.strip().split("\n\n")[-1].split("\n")
    assert last[0] == "event: error"
    assert json.loads(last[1].removeprefix("data: "))["status"] == 503
    assert "event: done" not in reply.text


async def test_service_that_is_down_says_so(start_rest):
    async with start_rest(tts=False) as rest, rest.client(await rest.key("speech-down")) as client:
        reply = await client.post("/v1/audio/speech", json={"input": "a"})
        assert reply.status_code == 503
        assert int(reply.headers["retry-after"]) >= 1
        voices = await client.get("/api/voices")
        assert voices.status_code == 503
        health = await client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "degraded")
        assert (await client.get("/health/ready")).status_code == 200
        events = await rest.events("speech-down")
    assert [event.outcome for event in events] == ["refunded"]
