"""The real network: what Kokoro says, Whisper hears; lengths, silences and voices hold."""

from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import av
import jiwer
import numpy as np
import pytest
from faster_whisper import WhisperModel
from transformers.models.whisper.english_normalizer import (
    BasicTextNormalizer,
    EnglishTextNormalizer,
)

from atrium_common.catalogue import Catalogue
from atrium_common.domain import Capability
from atrium_common.weights import WeightStore
from atrium_tts.domain import SpeakRequest, Voice
from atrium_tts.engines.base import Samples
from atrium_tts.engines.kokoro import KokoroEngine
from atrium_tts.engines.kokoro.model import SAMPLE_RATE

pytestmark = pytest.mark.model
ROOT = Path(__file__).resolve().parents[3]
MODEL = "kokoro-82m"


@pytest.fixture(scope="session")
def store() -> WeightStore:
    """The installation's own weights."""
    return WeightStore(ROOT / ".atrium" / "models")


@pytest.fixture(scope="session")
def starter() -> Catalogue:
    return Catalogue.load(ROOT / "models" / "starter.yaml")


@pytest.fixture(scope="session")
async def kokoro(starter: Catalogue, store: WeightStore) -> AsyncIterator[KokoroEngine]:
    engine = KokoroEngine([starter.resolve(MODEL, Capability.SPEECH)], store=store)
    await engine.load()
    yield engine
    await engine.close()


@pytest.fixture(scope="session")
def whisper(starter: Catalogue, store: WeightStore) -> WhisperModel:
    folder = store.ensure(starter.resolve("whisper-base", Capability.TRANSCRIPTION))
    return WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=2)


def voice(kokoro: KokoroEngine, name: str) -> Voice:
    return next(v for v in kokoro.voices() if name in (v.id, *v.aliases))


async def say(
    kokoro: KokoroEngine, text: str, name: str = "af_heart", speed: float = 1.0
) -> Samples:
    chosen = voice(kokoro, name)
    request = SpeakRequest(
        model=MODEL, voice=chosen, text=text, language=chosen.languages[0], speed=speed
    )
    return np.concatenate([piece async for piece in kokoro.speak(request)])


def hear(whisper: WhisperModel, audio: Samples, language: str) -> str:
    """Transcribes, after resampling to Whisper's 16 kHz."""
    frame = av.AudioFrame.from_ndarray(audio[None, :], "flt", "mono")
    frame.sample_rate = SAMPLE_RATE
    resampler = av.AudioResampler("flt", "mono", 16_000)
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    sound = np.concatenate([part.to_ndarray()[0] for part in frames])
    segments, _ = whisper.transcribe(sound, language=language, beam_size=2)
    return "".join(segment.text for segment in segments)


SENTENCES = (
    ("alloy", "Dr. Smith's train leaves in twenty minutes, so we should hurry."),
    ("onyx", "The weather was cold yesterday, but the sun is shining today."),
    ("fable", "Please send the report to the whole team before the end of the week."),
)


async def test_english_sentences_are_heard_as_they_were_written(
    kokoro: KokoroEngine, whisper: WhisperModel
) -> None:
    normal = EnglishTextNormalizer({})
    audio = np.concatenate([await say(kokoro, text, name) for name, text in SENTENCES])
    said = normal(" ".join(text for _, text in SENTENCES))
    assert jiwer.wer(said, normal(hear(whisper, audio, "en"))) <= 0.06


@pytest.mark.parametrize(
    ("name", "language", "text"),
    [
        ("ef_dora", "es", "Esta mañana paseamos junto al río y comimos en el jardín."),
        ("ff_siwis", "fr", "Ce matin nous avons marché le long de la rivière."),
    ],
)
async def test_other_languages_are_heard_as_they_were_written(
    kokoro: KokoroEngine, whisper: WhisperModel, name: str, language: str, text: str
) -> None:
    normal = BasicTextNormalizer()
    heard = hear(whisper, await say(kokoro, text, name), language)
    assert jiwer.wer(normal(text), normal(heard)) <= 0.15


async def test_the_same_request_gives_the_same_audio(kokoro: KokoroEngine) -> None:
    assert np.array_equal(await say(kokoro, "Good."), await say(kokoro, "Good."))


async def test_speed_changes_the_length(kokoro: KokoroEngine) -> None:
    lengths = [(await say(kokoro, "Good morning.", speed=speed)).size for speed in (2.0, 1.0, 0.5)]
    assert all(1.5 < slow / fast < 2.5 for fast, slow in pairwise(lengths))


async def test_silence_around_speech_depends_on_its_mark_alone(kokoro: KokoroEngine) -> None:
    for name in ("af_heart", "am_onyx"):
        for text, tail in (("Yes.", 0.3), ("Yes,", 0.15)):
            audio = np.abs(await say(kokoro, text, name))
            loud = np.flatnonzero(audio > 0.02 * audio.max()) / SAMPLE_RATE
            assert loud[0] == pytest.approx(0.04, abs=0.03)
            assert audio.size / SAMPLE_RATE - loud[-1] == pytest.approx(tail, abs=0.06)


async def test_every_voice_speaks_and_none_like_another(kokoro: KokoroEngine) -> None:
    heard = {}
    for listed in kokoro.voices():
        audio = await say(kokoro, "Ah", listed.id, speed=2.0)
        assert 0.1 < audio.size / SAMPLE_RATE < 2
        assert np.isfinite(audio).all()
        assert 0.02 < np.abs(audio).max() <= 1
        heard[audio.tobytes()] = listed.id
    assert len(heard) == 41
