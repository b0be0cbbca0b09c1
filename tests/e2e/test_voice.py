"""Speech by a real model through both doors: understood, streamed, billed, cancelled, refused.

What was spoken is judged by the suite's own transcription.
"""

import asyncio
import time
from typing import Any, NamedTuple

import grpc
import httpx
import numpy as np
import pytest
from openai import AsyncOpenAI

from atrium.tts.v1 import tts_pb2, tts_pb2_grpc
from atrium_stt.testing.sentences import SENTENCES
from tests.kit.audio import PCM_RATE, decoded, pcm, wav, with_pauses
from tests.kit.speech import error_rate
from tests.kit.suite import Suite

MODEL, VOICE, EARS = "kokoro-82m", "af_heart", "whisper-base"
MOST_ERRORS = 0.06
PARAGRAPH = (
    "When the old ferry was taken out of service, nobody in the village expected to miss it. "
    "It had been slow, loud and often late, and the new bridge promised a quick way to the city. "
    "But after 3 months people began to talk about the mornings on the water "
    "and about the captain, Mr. Hansen, who knew every name."
)
CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
}

pytestmark = pytest.mark.model


class Speech(NamedTuple):
    """What came, and what it was said to be."""

    content_type: str
    content: bytes


async def speak(client: AsyncOpenAI, text: str, response_format: str = "pcm") -> Speech:
    """Speech of `text`."""
    answer = await client.audio.speech.with_raw_response.create(
        model=MODEL, voice=VOICE, input=text, response_format=response_format
    )
    return Speech(answer.headers["content-type"].split(";")[0], answer.content)


async def hear(client: AsyncOpenAI, audio: bytes) -> str:
    """What the suite's own ears make of a file."""
    answer = await client.audio.transcriptions.create(model=EARS, file=("audio", audio))
    return answer.text


async def spoken_usage(rest: httpx.AsyncClient) -> dict[str, Any]:
    """What the ledger says that the tenant consumed in speech."""
    answer = await rest.get("/api/usage", params={"group_by": "capability"})
    answer.raise_for_status()
    sums = [each for each in answer.json()["groups"] if each["capability"] == "speech"]
    return dict(sums[0]["totals"]) if sums else {"characters": 0, "output_audio": 0, "cost": "0"}


async def test_ten_sentences_are_understood_and_billed(
    client: AsyncOpenAI, rest: httpx.AsyncClient
) -> None:
    answers = await asyncio.gather(*(speak(client, sentence) for sentence in SENTENCES))
    parts = [pcm(answer.content) for answer in answers]
    heard = await hear(client, wav(with_pauses(parts)))
    assert error_rate(" ".join(SENTENCES), heard) <= MOST_ERRORS

    billed = await spoken_usage(rest)
    assert billed["requests"] == len(SENTENCES)
    assert billed["characters"] == sum(map(len, SENTENCES))
    seconds = sum(map(len, parts)) / PCM_RATE
    assert billed["output_audio"] == pytest.approx(seconds, abs=0.02)


async def test_a_paragraph_begins_to_sound_before_it_is_spoken(client: AsyncOpenAI) -> None:
    began, pieces, first = time.perf_counter(), [], 0.0
    asked = client.audio.speech.with_streaming_response.create(
        model=MODEL, voice=VOICE, input=PARAGRAPH, response_format="flac"
    )
    async with asked as answer:
        async for piece in answer.iter_bytes():
            first = first or time.perf_counter() - began
            pieces.append(piece)
    took = time.perf_counter() - began
    # Its first sentence is a third of it.
    assert first < 0.75 * took
    assert error_rate(PARAGRAPH, await hear(client, b"".join(pieces))) <= MOST_ERRORS


async def test_every_format_says_the_same_through_both_doors(
    suite: Suite, key: str, client: AsyncOpenAI
) -> None:
    text = SENTENCES[-1]
    plain = pcm((await speak(client, text)).content)
    answers = {name: await speak(client, text, name) for name in CONTENT_TYPES}
    assert {name: each.content_type for name, each in answers.items()} == CONTENT_TYPES
    assert np.array_equal(decoded(answers.pop("flac").content), plain)
    errors = [error_rate(text, await hear(client, wav(plain)))]
    for answer in answers.values():
        assert len(decoded(answer.content)) == pytest.approx(len(plain), rel=0.02)
        errors.append(error_rate(text, await hear(client, answer.content)))
    assert max(errors) - min(errors) <= 0.01

    request = tts_pb2.SynthesizeSpeechRequest(
        model=MODEL, voice=VOICE, text=text, format=tts_pb2.AUDIO_FORMAT_WAV
    )
    async with grpc.aio.insecure_channel(suite.target("tts")) as channel:
        stub = tts_pb2_grpc.SpeechSynthesisServiceStub(channel)
        call = stub.SynthesizeSpeech(request, metadata=(("authorization", f"Bearer {key}"),))
        steps = [step async for step in call]
    by_grpc = decoded(b"".join(step.chunk.data for step in steps))
    assert steps[0].WhichOneof("step") == "info"
    assert steps[-1].WhichOneof("step") == "end"
    assert steps[-1].usage.characters == len(text)
    assert np.array_equal(by_grpc, plain)


async def test_whoever_leaves_pays_for_the_sentences_that_were_begun(
    client: AsyncOpenAI, rest: httpx.AsyncClient
) -> None:
    sentences = [f"This is sentence number {name}." for name in ("one", "two", "three", "four")]
    text = " ".join([*sentences, *SENTENCES])
    asked = client.audio.speech.with_streaming_response.create(
        model=MODEL, voice=VOICE, input=text, response_format="pcm"
    )
    async with asked as answer:
        async for _ in answer.iter_bytes():
            break
    for _ in range(200):
        events = (await rest.get("/api/usage/events")).json()["events"]
        if events:
            break
        await asyncio.sleep(0.1)
    (event,) = events
    assert event["outcome"] == "cancelled"
    assert len(sentences[0]) <= event["totals"]["characters"] <= len(" ".join(sentences[:3])) + 1
    assert event["totals"]["output_audio"] > 0


ENTITIES = '<!DOCTYPE speak [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><speak>&b;</speak>'
DEPTH = "<speak>" + "<prosody rate='slow'>" * 500 + "x" + "</prosody>" * 500 + "</speak>"


@pytest.mark.parametrize(
    ("path", "change", "status", "field"),
    [
        ("/v1/audio/speech", {"input": ""}, 400, "input"),
        ("/v1/audio/speech", {"input": "word " * 200_000}, 400, "input"),
        ("/v1/audio/speech", {"voice": "nobody"}, 404, "voice"),
        ("/v1/audio/speech", {"response_format": "midi"}, 400, "response_format"),
        ("/v1/audio/speech", {"speed": 9}, 400, "speed"),
        ("/api/text-to-speech", {"ssml": ENTITIES}, 400, "ssml"),
        ("/api/text-to-speech", {"ssml": DEPTH}, 400, "ssml"),
    ],
)
async def test_bad_input_is_named_and_costs_nothing(
    rest: httpx.AsyncClient, path: str, change: dict[str, Any], status: int, field: str
) -> None:
    good = {"model": MODEL, "voice": VOICE}
    good |= {"input": "Hello."} if path.startswith("/v1") else {}
    answer = await rest.post(path, json=good | change)
    assert answer.status_code == status, answer.text
    error = answer.json()
    assert (error["error"]["param"] if "error" in error else error["field"]) == field
    assert "Traceback" not in answer.text
    billed = await spoken_usage(rest)
    assert (billed["characters"], billed["output_audio"], billed["cost"]) == (0, 0, "0")
    assert (await rest.get("/health")).json()["services"]["tts"]["status"] == "ready"


async def test_voices_are_listed_with_their_languages_and_licences(
    rest: httpx.AsyncClient,
) -> None:
    voices = {each["id"]: each for each in (await rest.get("/api/voices")).json()["voices"]}
    assert voices[VOICE]["gender"] == "female"
    assert voices[VOICE]["languages"][0] == "en-us"
    assert voices[VOICE]["license"] == "Apache-2.0"
    names = {alias for each in voices.values() for alias in each["aliases"]}
    assert {"alloy", "nova", "onyx", "shimmer"} <= names
