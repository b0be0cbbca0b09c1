"""Live transcription by a real model: the official client speaks into the gateway's WebSocket."""

import httpx
import pytest
from openai import AsyncOpenAI

from atrium_stt.testing.sentences import SENTENCES
from tests.kit.audio import PCM_RATE, decoded
from tests.kit.live import transcribe_live
from tests.kit.speech import error_rate, spoken

MODEL = "whisper-base"

pytestmark = pytest.mark.model


async def test_live_speech_is_written_down_as_a_recording_is(
    client: AsyncOpenAI, rest: httpx.AsyncClient
) -> None:
    path = spoken(4)
    said = " ".join(SENTENCES[:4])
    samples = decoded(path.read_bytes())
    live = await transcribe_live(client, samples, model=MODEL, pace=None)
    whole = await client.audio.transcriptions.create(model=MODEL, file=path, language="en")
    assert error_rate(said, live.text) <= error_rate(said, whole.text) + 0.02
    # Deltas are only ever appended: together they are the transcript.
    for item, transcript in live.transcripts.items():
        assert live.deltas(item).strip() == transcript.strip()

    events = (await rest.get("/api/usage/events")).json()["events"]
    charged = {event["method"]: event["totals"]["input_audio"] for event in events}
    seconds = len(samples) / PCM_RATE
    assert len(charged) == 2
    assert all(each == pytest.approx(seconds, abs=0.1) for each in charged.values())
    assert live.seconds == pytest.approx(seconds, abs=0.1)
