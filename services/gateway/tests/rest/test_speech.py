"""Speech over REST: every format and shape, and bytes that leave while it is spoken."""

import asyncio
import base64
import io
import json

import av
import httpx
import pytest

from atrium_gateway.api.synthesis import audio_headers
from atrium_gateway.upstreams.synthesis import Info

TEXT = "The first sentence is spoken. A second one follows it. Then comes the third."
CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


def seconds_of(audio: bytes, shape: str, *, rate: int = 24_000) -> float:
    """The length of a file, by decoding all of it."""
    if shape == "pcm":
        return len(audio) / 2 / rate
    with av.open(io.BytesIO(audio)) as container:
        frames = [(frame.samples, frame.sample_rate) for frame in container.decode(audio=0)]
    return sum(samples for samples, _ in frames) / frames[0][1]


async def test_official_client_in_every_format(rest):
    client = rest.openai(await rest.key("speech-formats"))
    for shape, content_type in CONTENT_TYPES.items():
        answer = await client.audio.speech.create(
            model="tts-1", voice="alloy", input=TEXT, response_format=shape
        )
        assert answer.response.headers["content-type"].startswith(content_type)
        assert answer.response.headers["x-atrium-model"] == "fake-speech"
        assert answer.response.headers["x-atrium-voice"] == "tone-a"
        rate = int(answer.response.headers["x-atrium-sample-rate"])
        event = (await rest.events("speech-formats"))[-1]
        made = event.totals.output_audio.total_seconds()
        assert made > 0.04 * len(TEXT)
        assert seconds_of(answer.content, shape, rate=rate) == pytest.approx(made, abs=0.15)
        assert (event.outcome, event.totals.characters) == ("completed", len(TEXT))
    assert len(await rest.events("speech-formats")) == len(CONTENT_TYPES)


def test_a_voice_of_any_name_fits_into_a_header():
    names = {"tone-a": "tone-a", "Ana Florence": "Ana Florence", "Matarac\u0131": "Matarac%C4%B1"}
    for name, shown in (names | {"a\r\nset-cookie: b": "a%0D%0Aset-cookie: b"}).items():
        info = Info(
            model="m", voice=name, format="mp3", sample_rate=1, content_type="a/b", sentences=1
        )
        assert audio_headers(info)["x-atrium-voice"] == shown


async def test_audio_leaves_while_later_sentences_are_spoken(rest):
    client = rest.openai(await rest.key("speech-early"))
    text = " ".join(f"This is the sentence with the number {n}." for n in range(6))
    before = rest.tts_engine.started
    async with client.audio.speech.with_streaming_response.create(
        model="fake-slow-speech", voice="alloy", input=text, response_format="wav"
    ) as answer:
        pieces = answer.iter_bytes()
        audio = await anext(pieces)
        assert rest.tts_engine.started - before < 6
        async for piece in pieces:
            audio += piece
    (event,) = await rest.settled("speech-early", 1)
    made = event.totals.output_audio.total_seconds()
    assert seconds_of(audio, "wav") == pytest.approx(made, abs=0.05)


async def test_events_of_the_official_shape(rest, sse):
    async with rest.client(await rest.key("speech-sse")) as client:
        reply = await client.post(
            "/v1/audio/speech",
            json={
                "model": "gpt-4o-mini-tts",
                "voice": {"id": "tone-b"},
                "input": TEXT,
                "stream_format": "sse",
                "response_format": "pcm",
            },
        )
    *deltas, done = sse(reply.text)
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    audio = b"".join(base64.b64decode(event["audio"]) for event in deltas)
    assert done["type"] == "speech.audio.done"
    usage = done["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (0, 0, 0)
    assert usage["characters"] == len(TEXT)
    assert seconds_of(audio, "pcm") == pytest.approx(usage["seconds"], abs=0.01)
    (event,) = await rest.events("speech-sse")
    assert event.totals.characters == usage["characters"]
    assert event.totals.output_audio.total_seconds() == pytest.approx(usage["seconds"], abs=0.001)
    assert rest.tts_engine.spoken[-1].voice.id == "tone-b"


async def test_every_option_arrives(rest):
    async with rest.client(await rest.key("speech-options")) as client:
        reply = await client.post(
            "/api/text-to-speech",
            json={
                "text": "Guten Tag.",
                "voice": "tone-d",
                "model": "fake-speech",
                "language": "de",
                "format": "mp3",
                "sample_rate": 44_100,
                "bit_rate": 96_000,
                "speed": 1.5,
                "instructions": "Cheerfully.",
                "seed": 7,
                "temperature": 0.5,
            },
        )
    assert reply.status_code == 200
    assert reply.headers["x-atrium-sample-rate"] == "44100"
    spoken = rest.tts_engine.spoken[-1]
    assert (spoken.text, spoken.voice.id, spoken.language) == ("Guten Tag.", "tone-d", "de")
    assert (spoken.speed, spoken.seed, spoken.temperature) == (1.5, 7, 0.5)
    assert spoken.instructions == "Cheerfully."
    with av.open(io.BytesIO(reply.content)) as container:
        stream = container.streams.audio[0]
        assert stream.rate == 44_100
        assert stream.bit_rate == pytest.approx(96_000, rel=0.1)


async def test_speed_changes_the_length(rest):
    async with rest.client(await rest.key("speech-speed")) as client:
        lengths = []
        for speed in (0.25, 1.0, 4.0):
            body = {"input": TEXT, "speed": speed, "response_format": "pcm"}
            reply = await client.post("/v1/audio/speech", json=body)
            lengths.append(seconds_of(reply.content, "pcm"))
    assert lengths[0] == pytest.approx(4 * lengths[1], rel=0.05)
    assert lengths[2] == pytest.approx(lengths[1] / 4, rel=0.1)


async def test_json_with_marks_and_usage(rest):
    async with rest.client(await rest.key("speech-json")) as client:
        reply = await client.post(
            "/api/text-to-speech",
            json={"text": TEXT, "format": "flac", "sentence_marks": True},
            headers={"accept": "application/json"},
        )
        used = (await client.get("/api/usage")).json()["totals"]
    answer = reply.json()
    audio = base64.b64decode(answer["audio"])
    assert seconds_of(audio, "flac") == pytest.approx(answer["duration"], abs=0.05)
    parts = [TEXT[mark["start_character"] : mark["end_character"]] for mark in answer["marks"]]
    assert [part.strip() for part in parts] == [f"{part}." for part in TEXT[:-1].split(". ")]
    starts = [mark["start"] for mark in answer["marks"]]
    assert starts[0] < starts[1] < starts[2] < answer["duration"]
    assert answer["sentences"] == 3
    assert answer["usage"]["characters"] == len(TEXT)
    assert answer["usage"]["engine"] == "fake"
    (event,) = await rest.events("speech-json")
    assert event.id == answer["id"]
    assert event.totals.characters == len(TEXT)
    assert used["characters"] == len(TEXT)
    assert used["output_audio"] == pytest.approx(answer["duration"], abs=0.001)
    # 15 per million characters, by the catalogue.
    assert float(used["cost"]) == pytest.approx(15e-6 * len(TEXT))


async def test_stream_of_the_suites_own(rest):
    async with rest.client(await rest.key("speech-events")) as client:
        reply = await client.post(
            "/api/text-to-speech",
            json={"text": TEXT, "format": "wav", "sentence_marks": True, "stream": True},
        )
    blocks = [block.split("\n", 1) for block in reply.text.strip().split("\n\n")]
    names = [block[0].removeprefix("event: ") for block in blocks]
    data = [json.loads(block[1].removeprefix("data: ")) for block in blocks]
    assert (names[0], names[-1]) == ("info", "done")
    assert names.count("mark") == data[0]["sentences"] == 3
    assert names.index("mark") < names.index("audio")
    audio = b"".join(
        base64.b64decode(item["audio"])
        for name, item in zip(names, data, strict=True)
        if name == "audio"
    )
    assert seconds_of(audio, "wav") == pytest.approx(data[-1]["duration"], abs=0.05)
    assert data[-1]["usage"]["characters"] == len(TEXT)


async def test_file_by_default_whatever_browsers_accept(rest):
    async with rest.client(await rest.key("speech-accept")) as client:
        for accept in ("*/*", "audio/mpeg", "application/json, text/plain, */*", None):
            headers = {"accept": accept} if accept else {}
            reply = await client.post("/api/text-to-speech", json={"text": "Hi."}, headers=headers)
            assert reply.headers["content-type"].startswith("audio/mpeg")


async def test_ssml(rest):
    ssml = (
        '<speak>One <break time="500ms"/> two. <prosody rate="50%">Slow.</prosody>'
        '<sub alias="three">3</sub></speak>'
    )
    async with rest.client(await rest.key("speech-ssml")) as client:
        reply = await client.post("/api/text-to-speech", json={"ssml": ssml, "format": "pcm"})
    assert reply.status_code == 200
    (event,) = await rest.events("speech-ssml")
    assert 0 < event.totals.characters <= len(ssml)


async def test_speech_is_listed_and_its_service_is_watched(rest):
    async with rest.client(await rest.key("speech-lists")) as client:
        models = (await client.get("/v1/models")).json()["data"]
        assert "fake-speech" in [model["id"] for model in models]
        details = (await client.get("/api/models")).json()["models"]
        (detail,) = [model for model in details if model["id"] == "fake-speech"]
        assert (detail["state"], detail["default_for"]) == ("ready", ["speech"])
        health = (await client.get("/health")).json()
    assert health["services"]["tts"] == {"status": "ready", "capabilities": ["speech"]}


async def test_browsers_may_delete_and_read_the_headers(rest):
    async with httpx.AsyncClient(base_url=rest.url) as client:
        asked = {"origin": "https://app.example", "access-control-request-method": "DELETE"}
        preflight = await client.options("/api/voices/some", headers=asked)
        assert "DELETE" in preflight.headers["access-control-allow-methods"]
        plain = await client.get("/health/live", headers={"origin": "https://app.example"})
    assert "x-atrium-voice" in plain.headers["access-control-expose-headers"]


async def test_many_callers_each_get_their_own_audio(rest):
    client = rest.openai(await rest.key("speech-many", unlimited=True))

    async def say(number: int) -> tuple[int, float]:
        answer = await client.audio.speech.create(
            model="tts-1", voice="echo", input="a" * 10 * number, response_format="pcm"
        )
        return number, seconds_of(answer.content, "pcm")

    spoken = await asyncio.gather(*(say(number) for number in range(1, 13)))
    for number, seconds in spoken:
        assert seconds == pytest.approx(0.5 * number, abs=0.3)
    events = await rest.events("speech-many")
    assert sum(event.totals.characters for event in events) == sum(10 * n for n, _ in spoken)
