"""Transcription of synthetic and human speech by a real model, through both doors."""

import hashlib
import io
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import grpc
import httpx
import pytest
import srt
import webvtt
from openai import APIStatusError, AsyncOpenAI

from atrium.common.v1 import media_pb2
from atrium.stt.v1 import stt_pb2, stt_pb2_grpc
from atrium_stt.testing.sentences import SENTENCES
from tests.kit.speech import error_rate, human, spoken
from tests.kit.suite import Suite

MODEL = "whisper-base"
CHUNK = 64 * 1024

pytestmark = pytest.mark.model


def upload(path: Path) -> Iterator[stt_pb2.TranscribeAudioRequest]:
    """The steps of an upload over gRPC."""
    data = path.read_bytes()
    yield stt_pb2.TranscribeAudioRequest(config=stt_pb2.TranscriptionConfig(model=MODEL))
    for start in range(0, len(data), CHUNK):
        chunk = media_pb2.MediaChunk(data=data[start : start + CHUNK])
        yield stt_pb2.TranscribeAudioRequest(chunk=chunk)
    end = media_pb2.MediaEnd(sha256=hashlib.sha256(data).digest(), size=len(data))
    yield stt_pb2.TranscribeAudioRequest(end=end)


async def test_sentences_are_heard_alike_through_both_doors(
    suite: Suite, key: str, client: AsyncOpenAI, rest: httpx.AsyncClient
) -> None:
    path = spoken(4)
    by_rest = await client.audio.transcriptions.create(model=MODEL, file=path)
    assert error_rate(" ".join(SENTENCES[:4]), by_rest.text) < 0.10

    async with grpc.aio.insecure_channel(suite.target("stt")) as channel:
        stub = stt_pb2_grpc.TranscriptionServiceStub(channel)
        call = stub.TranscribeAudio(upload(path), metadata=(("authorization", f"Bearer {key}"),))
        steps = [step async for step in call]
    assert steps[0].WhichOneof("step") == "info"
    by_grpc = "".join(step.segment.text for step in steps if step.WhichOneof("step") == "segment")
    assert by_grpc.strip() == by_rest.text

    sums = (await rest.get("/api/usage")).json()["totals"]
    seconds = steps[0].info.duration.ToTimedelta().total_seconds()
    assert sums["requests"] == 2
    assert sums["input_audio"] == pytest.approx(2 * seconds, abs=0.01)


@pytest.mark.parametrize("prompt", ["conf-adminmenu", "conf-getpin"])
async def test_a_person_is_understood(client: AsyncOpenAI, prompt: str) -> None:
    path, said = human(prompt)
    heard = await client.audio.transcriptions.create(model=MODEL, file=path, language="en")
    assert error_rate(said, heard.text) < 0.15


async def test_ten_sentences_make_subtitles_that_cover_the_text(client: AsyncOpenAI) -> None:
    path = spoken(10)
    as_srt = await client.audio.transcriptions.create(model=MODEL, file=path, response_format="srt")
    # Whisper moves its window by the words where it times them, so this is the same decoding.
    timed = await client.audio.transcriptions.create(
        model=MODEL, file=path, response_format="verbose_json", timestamp_granularities=["word"]
    )
    subtitles = list(srt.parse(str(as_srt)))
    told = " ".join(timed.text.split())
    assert error_rate(" ".join(SENTENCES), told) < 0.10
    assert " ".join(" ".join(each.content for each in subtitles).split()) == told
    assert all(len(line) <= 42 for each in subtitles for line in each.content.split("\n"))
    assert all(each.end - each.start <= timedelta(seconds=7) for each in subtitles)
    assert all(before.end <= after.start for before, after in pairwise(subtitles))
    # The engine gave fewer segments than sentences; the cues end with the sentences.
    ended = sum(each.content.endswith((".", "!", "?")) for each in subtitles)
    assert ended >= 0.8 * len(subtitles)


async def test_words_have_times_and_segments_stream(client: AsyncOpenAI) -> None:
    path = spoken(2)
    verbose = await client.audio.transcriptions.create(
        model=MODEL,
        file=path,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert verbose.language == "en"
    assert verbose.words
    assert verbose.segments
    starts = [word.start for word in verbose.words]
    assert starts == sorted(starts)
    assert verbose.words[-1].end <= float(verbose.duration) + 0.1

    as_vtt = await client.audio.transcriptions.create(model=MODEL, file=path, response_format="vtt")
    captions = webvtt.from_buffer(io.StringIO(str(as_vtt)))
    told = " ".join(" ".join(each.text for each in captions).split())
    assert told == " ".join(verbose.text.split())

    deltas, final = "", None
    stream = await client.audio.transcriptions.create(model=MODEL, file=path, stream=True)
    async for event in stream:
        if event.type == "transcript.text.delta":
            deltas += event.delta
        elif event.type == "transcript.text.done":
            final = event.text
    assert deltas.strip() == final == verbose.text.strip()


async def test_translation_gives_english(client: AsyncOpenAI) -> None:
    with pytest.warns(DeprecationWarning, match="deprecated"):  # the client's own view
        answer = await client.audio.translations.create(model=MODEL, file=spoken(1))
    assert error_rate(SENTENCES[0], answer.text) < 0.3


@pytest.mark.parametrize(
    "content", [b"", b"this is no audio" * 100, b"RIFF\x24\x00\x00\x00WAVEfmt "]
)
async def test_bad_audio_is_named_and_costs_nothing(
    client: AsyncOpenAI, rest: httpx.AsyncClient, content: bytes
) -> None:
    with pytest.raises(APIStatusError) as refused:
        await client.audio.transcriptions.create(model=MODEL, file=("speech.wav", content))
    assert refused.value.status_code == 400
    assert refused.value.param == "file"
    assert "Traceback" not in refused.value.message
    sums = (await rest.get("/api/usage")).json()["totals"]
    assert (sums["input_audio"], sums["cost"]) == (0, "0")
    health = (await rest.get("/health")).json()
    assert health["status"] == "ok"
