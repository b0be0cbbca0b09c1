"""Voices over REST: listed, made of recordings, used, deleted, and only by their tenant."""

import base64
import io
import math
import wave

import pytest

from atrium_gateway.quota.limits import Limit, Unit, Window


def tone(seconds: float, *, rate: int = 16_000) -> bytes:
    """A WAV with something to hear."""
    file = io.BytesIO()
    cycle = b"".join(
        int(12_000 * math.sin(2 * math.pi * at / 80)).to_bytes(2, "little", signed=True)
        for at in range(80)
    )
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(cycle * (int(seconds * rate) // 80))
    return file.getvalue()


RECORDING = tone(8)


async def create(client, name="Mine", *, file=RECORDING, **fields):
    """Makes a voice by a form."""
    data = {"name": name, "consent": "true", **fields}
    return await client.post("/api/voices", data=data, files={"file": ("me.wav", file)})


async def test_built_in_voices_and_filters(rest):
    async with rest.client(await rest.key("voices-list")) as client:
        voices = (await client.get("/api/voices")).json()["voices"]
        german = (await client.get("/api/voices", params={"language": "de"})).json()["voices"]
        by_alias = (await client.get("/api/voices", params={"model": "tts-1"})).json()["voices"]
        unknown = await client.get("/api/voices", params={"model": "nothing"})
        wrong = await client.get("/api/voices", params={"color": "red"})
    assert [voice["id"] for voice in voices] == ["tone-a", "tone-b", "tone-c", "tone-d"]
    first = voices[0]
    assert (first["name"], first["gender"], first["license"]) == ("Ada", "female", "CC0-1.0")
    assert "alloy" in first["aliases"]
    assert (first["cloned"], first["created_at"]) == (False, None)
    assert [voice["id"] for voice in german] == ["tone-d"]
    assert len(by_alias) == 4
    assert (unknown.status_code, unknown.json()["field"]) == (404, "model")
    assert (wrong.status_code, wrong.json()["field"]) == (400, "color")
    assert await rest.events("voices-list") == []


async def test_voice_is_made_used_and_deleted(rest):
    key = await rest.key("voices-life")
    async with rest.client(key) as client:
        made = await create(client, "Minä", language="de", gender="female")
        assert made.status_code == 201
        voice = made.json()
        assert (voice["name"], voice["gender"], voice["cloned"]) == ("Minä", "female", True)
        assert voice["models"] == ["fake-speech"]
        assert voice["license"] is None
        assert voice["created_at"]
        listed = (await client.get("/api/voices")).json()["voices"]
        assert listed[-1] == voice
        answer = await rest.openai(key).audio.speech.create(
            model="tts-1", voice={"id": voice["id"]}, input="It is me."
        )
        assert answer.response.headers["x-atrium-voice"] == voice["id"]
        assert rest.tts_engine.spoken[-1].latents
        gone = await client.delete(f"/api/voices/{voice['id']}")
        assert (gone.status_code, gone.json()) == (200, {"id": voice["id"], "deleted": True})
        assert (await client.delete(f"/api/voices/{voice['id']}")).status_code == 404
        body = {"input": "a", "voice": voice["id"]}
        assert (await client.post("/v1/audio/speech", json=body)).status_code == 404
    events = [event for event in await rest.events("voices-life") if event.outcome == "completed"]
    assert events[0].totals.input_audio.total_seconds() == pytest.approx(8, abs=0.01)
    assert (events[0].totals.characters, events[0].totals.requests) == (0, 1)
    assert len(events) == 2


async def test_json_makes_the_same_voice(rest):
    async with rest.client(await rest.key("voices-json")) as client:
        body = {"name": "J", "consent": True, "audio": base64.b64encode(RECORDING).decode()}
        made = await client.post("/api/voices", json=body)
        assert made.status_code == 201
        broken = await client.post("/api/voices", json=body | {"audio": "AAAA"})
        assert (broken.status_code, broken.json()["field"]) == (400, "audio")
        empty = await client.post("/api/voices", json=body | {"audio": ""})
        assert (empty.status_code, empty.json()["field"]) == (400, "audio")


async def test_nobody_else_sees_uses_or_deletes_it(rest):
    async with rest.client(await rest.key("voices-mine")) as mine:
        voice = (await create(mine)).json()["id"]
        async with rest.client(await rest.key("voices-theirs")) as theirs:
            listed = (await theirs.get("/api/voices")).json()["voices"]
            assert voice not in [item["id"] for item in listed]
            used = await theirs.post("/v1/audio/speech", json={"input": "a", "voice": voice})
            assert (used.status_code, used.json()["error"]["code"]) == (404, "voice_not_found")
            assert (await theirs.delete(f"/api/voices/{voice}")).status_code == 404
        assert (await mine.delete(f"/api/voices/{voice}")).status_code == 200
    events = await rest.events("voices-theirs")
    assert all(event.totals.requests == 0 for event in events)


async def test_built_in_voices_can_not_be_deleted(rest):
    async with rest.client(await rest.key("voices-built-in")) as client:
        for name in ("tone-a", "nobody", "..%2F..%2Fetc", "a" * 300):
            reply = await client.delete(f"/api/voices/{name}")
            assert reply.status_code == 404
            assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("fields", "file", "status", "field"),
    [
        ({"consent": "false"}, RECORDING, 403, "consent"),
        ({"name": ""}, RECORDING, 400, "name"),
        ({"name": "x" * 65}, RECORDING, 400, "name"),
        ({"gender": "robot"}, RECORDING, 400, "gender"),
        ({"language": "not a language"}, RECORDING, 400, "language"),
        ({"model": "nothing"}, RECORDING, 404, "model"),
        ({"color": "red"}, RECORDING, 400, "color"),
        ({}, b"", 400, "file"),
        ({}, b"RIFF" + b"?" * 4000, 400, "file"),
        ({}, tone(2), 400, "file"),
        ({}, tone(600, rate=4_000), 400, "file"),
    ],
)
async def test_what_is_wrong_is_named_and_free(rest, fields, file, status, field):
    async with rest.client(await rest.key("voices-wrong", unlimited=True)) as client:
        reply = await create(client, file=file, **fields)
        assert reply.status_code == status
        assert reply.json()["field"] == field
        listed = (await client.get("/api/voices")).json()["voices"]
    assert len(listed) == 4
    assert all(event.totals.requests == 0 for event in await rest.events("voices-wrong"))


async def test_consent_has_to_be_given(rest):
    async with rest.client(await rest.key("voices-consent")) as client:
        files = {"file": ("me.wav", RECORDING)}
        reply = await client.post("/api/voices", data={"name": "Mine"}, files=files)
    assert (reply.status_code, reply.json()["code"]) == (403, "consent_required")


async def test_model_that_does_not_clone(rest):
    async with rest.client(await rest.key("voices-unable")) as client:
        reply = await create(client, model="fake-slow-speech")
    assert reply.status_code == 501
    assert all(event.totals.requests == 0 for event in await rest.events("voices-unable"))


async def test_recordings_count_against_a_limit_of_audio(rest):
    limit = Limit("speech", Unit.AUDIO_SECONDS, Window.HOUR, 12)
    async with rest.client(await rest.key("voices-limit", limit)) as client:
        assert (await create(client)).status_code == 201
        refused = await create(client)
        assert refused.status_code == 429
        assert refused.headers["x-ratelimit-limit-audio-seconds"] == "12"
        listed = (await client.get("/api/voices")).json()["voices"]
    assert len(listed) == 5
