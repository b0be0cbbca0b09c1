"""Live speech with the real engine, fed faster than it is spoken: text, growth, silence."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import jiwer
import numpy as np
import pytest
from faster_whisper.vad import get_vad_model
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from atrium_common.domain import Usage
from atrium_common.errors import Conflict, InvalidArgument
from atrium_common.work import WorkQueue
from atrium_stt.domain import (
    FinalSegment,
    LiveEvent,
    LiveJob,
    PartialSegment,
    SpeechDismissed,
    TranscriptionJob,
)
from atrium_stt.engines.faster_whisper import FasterWhisperEngine
from atrium_stt.engines.silero import SileroListener
from atrium_stt.live.agreement import LocalAgreement
from atrium_stt.live.listening import LiveLimits
from atrium_stt.live.session import LiveSession
from atrium_stt.live.turns import Turns
from atrium_stt.testing.live import frames
from atrium_stt.testing.sentences import SENTENCES
from atrium_stt.testing.sounds import RATE, read_wav, write_wav

pytestmark = pytest.mark.model
NORMAL = EnglishTextNormalizer({})
BASE = "whisper-base"
ENDLESS = float("inf")


async def live(
    engine: FasterWhisperEngine,
    chunks: AsyncIterator[bytes],
    *,
    model: str = BASE,
    partials: bool = False,
    rate: int = RATE,
    **options: object,
) -> list[LiveEvent]:
    job = LiveJob(
        transcription=TranscriptionJob(model=model, **options),  # type: ignore[arg-type]
        sample_rate=rate,
        partial_results=partials,
    )

    async def cover(audio: timedelta) -> None:
        del audio

    turns = Turns(WorkQueue(slots=1, max_queue=4), tenant="acme")
    async with engine.open_live(job) as transcriber:
        session = LiveSession(
            job,
            transcriber,
            turns,
            usage=Usage(model=model),
            cover=cover,
            limits=LiveLimits(),
        )
        return [event async for event in session.run(chunks)]


def finals(events: list[LiveEvent]) -> list[FinalSegment]:
    return [event.step for event in events if isinstance(event.step, FinalSegment)]


def text(events: list[LiveEvent]) -> str:
    return "".join(final.segment.text for final in finals(events))


def wer(said: str, given: str) -> float:
    return float(jiwer.wer(NORMAL(said), NORMAL(given)))


async def test_sentences_become_segments_with_times_words_and_confidence(
    base: FasterWhisperEngine, spoken: list[Path], tmp_path: Path
) -> None:
    pause = np.zeros(RATE * 3 // 5, np.int16)
    sound = [part for file in spoken[5:] for part in (read_wav(file), pause)]
    path = write_wav(tmp_path / "five", np.concatenate(sound))
    events = await live(base, frames(path, speed=ENDLESS), word_timestamps=True)
    heard = finals(events)
    assert wer(" ".join(SENTENCES[5:]), text(events)) < 0.06
    assert [final.segment.index for final in heard] == list(range(len(heard)))
    assert {final.language for final in heard} == {"en"}
    position = timedelta()
    for final in heard:
        segment = final.segment
        assert position <= segment.start < segment.end
        assert -1 < segment.average_logprob < 0
        assert "".join(word.text for word in segment.words) == segment.text
        starts = [word.start for word in segment.words]
        assert starts == sorted(starts)
        assert segment.start - timedelta(seconds=0.5) <= starts[0]
        assert segment.words[-1].end <= segment.end + timedelta(seconds=0.5)
        position = segment.end
    seconds = sum(len(part) for part in sound) / RATE
    assert events[-1].usage.input_audio.total_seconds() == pytest.approx(seconds, abs=1e-3)
    assert events[-1].usage.inference_time > timedelta()


async def test_drafts_grow_and_the_final_text_keeps_what_they_agreed_on(
    base: FasterWhisperEngine, spoken: list[Path]
) -> None:
    sound = read_wav(spoken[6]).astype(np.float32) / 32768
    job = LiveJob(transcription=TranscriptionJob(model=BASE), sample_rate=RATE)
    agreement = LocalAgreement()
    async with base.open_live(job) as ear:
        for seconds in (1.0, 2.0, 3.0, 4.0):
            heard = sound[: int(seconds * RATE)]
            agreement.add(await ear.draft(heard, stable=agreement.stable))
        final = await ear.transcribe(sound, stable=agreement.stable)
        # What was promised is kept, were it ever so wrong.
        forced = await ear.transcribe(sound, stable=" The doctors")
    assert len(agreement.stable.split()) >= 4
    assert final is not None
    assert final.segment.text.startswith(agreement.stable)
    assert wer(SENTENCES[6], final.segment.text) < 0.10
    assert -1 < final.segment.average_logprob < 0
    assert final.language == "en"
    assert forced is not None
    assert forced.segment.text.startswith(" The doctors")
    assert forced.segment.average_logprob < final.segment.average_logprob


@pytest.mark.parametrize("kind", ["nothing", "hum", "noise"])
async def test_silence_and_noise_give_no_text(
    base: FasterWhisperEngine, tmp_path: Path, kind: str
) -> None:
    time = np.arange(8 * RATE) / RATE
    sound = {
        "nothing": np.zeros(len(time)),
        "hum": 3000 * np.sin(2 * np.pi * 50 * time),
        "noise": np.random.default_rng(7).normal(0, 300, len(time)),
    }[kind]
    path = write_wav(tmp_path / "quiet", sound.astype(np.int16))
    events = await live(base, frames(path, speed=ENDLESS), partials=True)
    assert not text(events)
    assert not [e for e in events if isinstance(e.step, PartialSegment)]
    assert events[-1].usage.input_audio == timedelta(seconds=8)


async def test_prompt_and_hotwords_set_the_spelling(
    base: FasterWhisperEngine, spoken: list[Path]
) -> None:
    said = [
        text(await live(base, frames(spoken[2], speed=ENDLESS), language="en", **options))
        for options in (
            {},
            {"prompt": "We left at twelve. Thirty people came, and fifty more in forty minutes."},
            {"hotwords": ("twenty", "thirty", "forty")},
        )
    ]
    assert "20 minutes" in said[0]
    assert "twenty minutes" in said[1]
    assert "twenty minutes" in said[2]


OPTIONS: list[dict[str, object]] = [
    {},
    {"language": "yue", "temperature": 0.0},
    {"task": "translate", "language": "de"},
    {"temperature": 0.7, "word_timestamps": True},
    {
        "condition_on_previous_text": True,
        "prompt": "Atrium. " * 300,
        "hotwords": ("Flite",),
        "temperature": 0.0,
    },
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
async def test_the_large_shape_takes_every_path(
    tiny: FasterWhisperEngine, spoken: list[Path], options: dict[str, object]
) -> None:
    events = await live(
        tiny,
        frames(spoken[0], speed=ENDLESS),
        model="tiny-large-v3",
        partials=True,
        **{"beam_size": 2} | options,
    )
    assert finals(events) or any(isinstance(e.step, SpeechDismissed) for e in events)


async def test_an_english_only_model_hears_english(
    tiny: FasterWhisperEngine, spoken: list[Path]
) -> None:
    sound = frames(spoken[0], speed=ENDLESS)
    events = await live(tiny, sound, model="tiny-english", temperature=0.0)
    assert {final.language for final in finals(events)} <= {"en"}
    with pytest.raises(InvalidArgument):
        await live(tiny, frames(spoken[0]), model="tiny-english", language="de")


async def test_a_model_in_use_is_not_unloaded(
    tiny: FasterWhisperEngine, spoken: list[Path]
) -> None:
    job = LiveJob(transcription=TranscriptionJob(model="tiny-turbo"), sample_rate=RATE)
    async with tiny.open_live(job):
        with pytest.raises(Conflict):
            await tiny.unload_model("tiny-turbo")
    many = TranscriptionJob(
        model="tiny-turbo", hotwords=tuple(f"antidisestablishment{n}" for n in range(64))
    )
    with pytest.raises(InvalidArgument) as caught:
        async with tiny.open_live(LiveJob(transcription=many, sample_rate=RATE)):
            pass
    assert caught.value.field == "hotwords"


def test_the_voice_detector_hears_the_same_in_pieces_as_in_one(spoken: list[Path]) -> None:
    sound = read_wav(spoken[0]).astype(np.float32) / 32768
    sound = sound[: len(sound) // 512 * 512]
    whole = get_vad_model()(np.concatenate([sound, np.zeros(512, np.float32)]))[:-1]
    listener, found = SileroListener(), []
    for start in range(0, len(sound), 3 * 512):
        found += listener.probabilities(sound[start : start + 3 * 512])
    assert np.allclose(found, whole.reshape(-1), atol=1e-4)
