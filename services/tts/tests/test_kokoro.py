"""The real network: what Kokoro says, Whisper hears; lengths and voices hold."""

from collections.abc import AsyncIterator
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
from atrium_tts.engines.kokoro.phonemes import MOST
from atrium_tts.engines.kokoro.voices import FILE_ORDER

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
    segments, _ = whisper.transcribe(sound, language=language, beam_size=1)
    return "".join(segment.text for segment in segments)


SENTENCES = (
    ("alloy", "Dr. Smith's train leaves in twenty minutes, so we should hurry."),
    ("fable", "The weather was cold yesterday, but the sun is shining today."),
)


async def test_english_sentences_are_heard_as_they_were_written(
    kokoro: KokoroEngine, whisper: WhisperModel
) -> None:
    normal = EnglishTextNormalizer({})
    audio = np.concatenate([await say(kokoro, text, name) for name, text in SENTENCES])
    said = normal(" ".join(text for _, text in SENTENCES))
    assert jiwer.wer(said, normal(hear(whisper, audio, "en"))) <= 0.06


async def test_another_language_is_heard_as_it_was_written(
    kokoro: KokoroEngine, whisper: WhisperModel
) -> None:
    text = "Esta mañana paseamos junto al río y comimos en el jardín."
    normal = BasicTextNormalizer()
    heard = hear(whisper, await say(kokoro, text, "ef_dora"), "es")
    assert jiwer.wer(normal(text), normal(heard)) <= 0.15


async def test_the_same_request_gives_the_same_audio(kokoro: KokoroEngine) -> None:
    assert np.array_equal(await say(kokoro, "Good."), await say(kokoro, "Good."))


async def test_speed_changes_the_length(kokoro: KokoroEngine) -> None:
    fast, slow = [(await say(kokoro, "Good morning.", speed=speed)).size for speed in (2.0, 1.0)]
    assert 1.5 < slow / fast < 2.5


def test_every_voice_is_whole_and_none_is_another(starter: Catalogue, store: WeightStore) -> None:
    file = store.ensure(starter.resolve(MODEL, Capability.SPEECH)) / "voices.bin"
    styles = np.fromfile(file, np.float32).reshape(len(FILE_ORDER), MOST * 256)
    assert np.isfinite(styles).all()
    assert len({style.tobytes() for style in styles}) == len(FILE_ORDER)


async def test_each_language_has_a_voice_that_speaks(kokoro: KokoroEngine) -> None:
    for language in kokoro.languages(MODEL):
        listed = next(v for v in kokoro.voices() if language in v.languages)
        audio = await say(kokoro, "Ah", listed.id, speed=2.0)
        assert 0.1 < audio.size / SAMPLE_RATE < 2
        assert 0.02 < np.abs(audio).max() <= 1
