"""The audio endpoints: every format, every way in, and the official client."""

import base64
import json

import openai
import pytest

from atrium_gateway.quota.limits import Limit, Unit, Window

TEXT = "Segment 0 transcribed. Segment 1 transcribed. Segment 2 transcribed."


async def test_official_client_in_every_format(rest, recording):
    client = rest.openai(await rest.key("audio-formats")).audio.transcriptions
    answers = {}
    for shape in ("json", "text", "srt", "vtt", "verbose_json"):
        answers[shape] = await client.create(
            file=("a.wav", recording), model="whisper-1", response_format=shape
        )
    assert answers["json"].text == TEXT
    assert answers["json"].usage.seconds == 12
    assert answers["text"] == f"{TEXT}\n"
    assert answers["srt"].startswith("1\n00:00:00,000 --> 00:00:05,000\nSegment 0 transcribed.\n")
    assert answers["vtt"].startswith("WEBVTT\n\n00:00:00.000 --> 00:00:05.000\n")
    verbose = answers["verbose_json"]
    assert verbose.text == TEXT
    assert [segment.id for segment in verbose.segments] == [0, 1, 2]
    assert verbose.words is None
    events = await rest.events("audio-formats")
    assert [event.totals.input_audio.total_seconds() for event in events] == [12.0] * 5


@pytest.mark.parametrize("shape", ["bytes", "tuple", "nameless"])
async def test_uploads_as_the_client_sends_them(rest, recording, shape):
    file = {
        "bytes": recording,
        "tuple": ("speech.mp3", recording, "audio/mpeg"),
        "nameless": ("speech", recording, "application/octet-stream"),
    }[shape]
    client = rest.openai(await rest.key("audio-uploads"))
    answer = await client.audio.transcriptions.create(file=file, model="whisper-1")
    assert answer.text == TEXT


async def test_words_and_segments(rest, recording):
    client = rest.openai(await rest.key("audio-words")).audio.transcriptions
    words = await client.create(
        file=recording,
        model="whisper-1",
        response_format="verbose_json",
        timestamp_granularities=["word"],
    )
    assert [word.word for word in words.words[:3]] == ["Segment", "0", "transcribed."]
    assert words.segments is None
    both = await client.create(
        file=recording,
        model="whisper-1",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert len(both.words) == 9
    assert len(both.segments) == 3


async def test_stream_of_text(rest, recording):
    client = rest.openai(await rest.key("audio-stream")).audio.transcriptions
    stream = await client.create(file=recording, model="whisper-1", stream=True)
    events = [event async for event in stream]
    assert [event.type for event in events[:-1]] == ["transcript.text.delta"] * 3
    assert "".join(event.delta for event in events[:-1]) == TEXT
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == TEXT


async def test_translation(rest, recording):
    client = rest.openai(await rest.key("audio-translate")).audio.translations
    with pytest.warns(
        DeprecationWarning, match="deprecated"
    ):  # the client's own, for the whole endpoint
        answer = await client.create(file=recording, model="whisper-1")
    assert answer.text.startswith("Segment 0 translated.")


async def test_three_ways_into_speech_to_text_agree(rest, recording):
    async with rest.client(await rest.key("audio-ways")) as client:
        path = "/api/speech-to-text"
        form = await client.post(
            path, files={"file": recording}, data={"task": "translate", "language": "de"}
        )
        raw = await client.post(
            f"{path}?task=translate&language=de",
            content=recording,
            headers={"content-type": "audio/wav"},
        )
        body = {
            "audio": base64.b64encode(recording).decode(),
            "task": "translate",
            "language": "de",
        }
        encoded = await client.post(path, json=body)
    answers = [reply.json() for reply in (form, raw, encoded)]
    for answer in answers:
        del answer["id"], answer["usage"]["queue_time"], answer["usage"]["inference_time"]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["language"] == "de"
    assert answers[0]["usage"]["input_audio"] == 12.0


async def test_speech_to_text_in_a_stream(rest, recording):
    async with rest.client(await rest.key("audio-events")) as client:
        reply = await client.post(
            "/api/speech-to-text?stream=true&word_timestamps=true", content=recording
        )
    blocks = [block.split("\n") for block in reply.text.strip().split("\n\n")]
    assert [block[0] for block in blocks] == [
        "event: info",
        "event: segment",
        "event: segment",
        "event: segment",
        "event: done",
    ]
    done = json.loads(blocks[-1][1].removeprefix("data: "))
    assert done["text"] == TEXT


@pytest.mark.parametrize(
    ("data", "file", "param"),
    [
        ({}, b"", "file"),
        ({}, None, "file"),
        ({"color": "red"}, b"x", "color"),
        ({"temperature": "2"}, b"x", "temperature"),
        ({"language": "English"}, b"x", "language"),
        ({"response_format": "xml"}, b"x", "response_format"),
        ({"timestamp_granularities[]": "word"}, b"x", "timestamp_granularities"),
        ({"stream": "true", "response_format": "srt"}, b"x", "stream"),
        ({"include[]": "logprobs"}, b"x", "include[]"),
        ({"model": "fake-chat"}, b"x", "model"),
    ],
)
async def test_what_is_wrong_is_named(rest, data, file, param):
    async with rest.client(await rest.key("audio-wrong")) as client:
        files = {"file": ("a.wav", file)} if file is not None else {"": b""}
        reply = await client.post("/v1/audio/transcriptions", data=data, files=files)
    assert 400 <= reply.status_code < 500
    if file is not None:
        assert reply.json()["error"]["param"] == param
    assert await rest.events("audio-wrong") == []


async def test_corrupt_audio_is_the_clients_fault_and_free(rest):
    client = rest.openai(await rest.key("audio-corrupt"))
    with pytest.raises(openai.BadRequestError):
        await client.audio.transcriptions.create(file=b"RIFF" + b"?" * 4000, model="whisper-1")
    (event,) = await rest.events("audio-corrupt")
    assert event.outcome == "refunded"
    assert event.totals.requests == 0


async def test_audio_seconds_are_limited_before_any_work(rest, recording):
    limit = Limit("transcription", Unit.AUDIO_SECONDS, Window.HOUR, 20)
    client = rest.openai(await rest.key("audio-limit", limit)).audio.transcriptions
    await client.create(file=recording, model="whisper-1")
    with pytest.raises(openai.RateLimitError):
        await client.create(file=recording, model="whisper-1")


async def test_large_upload_goes_through_the_disk_whole(rest):
    # A WAV of 4 MiB: larger than what is kept in memory, and than a gRPC message.
    size = 4 << 20
    header = (
        b"RIFF"
        + (size + 36).to_bytes(4, "little")
        + b"WAVEfmt "
        + (16).to_bytes(4, "little")
        + b"\x01\x00\x01\x00"
        + (8000).to_bytes(4, "little")
        + (16000).to_bytes(4, "little")
        + b"\x02\x00\x10\x00data"
        + size.to_bytes(4, "little")
    )
    client = rest.openai(await rest.key("audio-large"))
    answer = await client.audio.transcriptions.create(
        file=header + bytes(size), model="whisper-1", response_format="verbose_json"
    )
    assert answer.duration == pytest.approx(size / 16000)
