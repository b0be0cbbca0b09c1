"""The real engine: Whisper base hears right, and the large-v3 shape takes every path."""

from pathlib import Path

import jiwer
import numpy as np
import pytest
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from atrium_common.errors import InvalidArgument, NotFound
from atrium_stt.domain import Segment, Task, TranscriptionEvent, TranscriptionInfo, TranscriptionJob
from atrium_stt.engines.faster_whisper import FasterWhisperEngine
from atrium_stt.testing.sentences import SENTENCES
from atrium_stt.testing.sounds import FORMATS, RATE, encode, read_wav, write_wav

pytestmark = pytest.mark.model
NORMAL = EnglishTextNormalizer({})
BASE = "whisper-base"
LARGE, TURBO, ENGLISH = "tiny-large-v3", "tiny-turbo", "tiny-english"


async def events(
    engine: FasterWhisperEngine, audio: Path, model: str = BASE, **options: object
) -> list[TranscriptionEvent]:
    job = TranscriptionJob(model=model, **options)  # type: ignore[arg-type]
    return [event async for event in engine.transcribe(job, audio)]


def heard(given: list[TranscriptionEvent]) -> list[Segment]:
    return [event.step for event in given if isinstance(event.step, Segment)]


def text(given: list[TranscriptionEvent]) -> str:
    return "".join(segment.text for segment in heard(given))


def wer(said: str, given: str) -> float:
    return float(jiwer.wer(NORMAL(said), NORMAL(given)))


async def test_ten_ordinary_sentences(base: FasterWhisperEngine, ten_sentences: Path) -> None:
    given = await events(base, ten_sentences)
    assert wer(" ".join(SENTENCES), text(given)) < 0.10
    info = given[0].step
    assert isinstance(info, TranscriptionInfo)
    assert info.language == "en"


async def test_a_long_recording_is_heard_in_batches_that_stream(
    base: FasterWhisperEngine, minutes: Path
) -> None:
    given = await events(base, minutes, language="en")
    assert wer(" ".join(SENTENCES * 2), text(given)) < 0.10
    segments = heard(given)
    assert [s.index for s in segments] == list(range(len(segments)))
    assert len(segments) >= 3
    info = given[0].step
    assert isinstance(info, TranscriptionInfo)
    assert info.language == "en"
    audio = [event.usage.input_audio for event in given]
    assert audio == sorted(audio)
    assert audio[-1] == info.duration
    assert all(s.start < s.end <= info.duration for s in segments)


@pytest.mark.parametrize("kind", FORMATS)
async def test_the_format_does_not_matter(
    base: FasterWhisperEngine, spoken: list[Path], tmp_path: Path, kind: str
) -> None:
    path = encode(tmp_path / "upload", read_wav(spoken[3]), kind)
    assert wer(SENTENCES[3], text(await events(base, path, language="en", beam_size=1))) <= 0.10


async def test_silence_gives_no_text(base: FasterWhisperEngine, tmp_path: Path) -> None:
    given = await events(base, write_wav(tmp_path / "silence", np.zeros(5 * RATE, np.int16)))
    assert not heard(given)
    assert isinstance(given[0].step, TranscriptionInfo)


async def test_words_have_times(base: FasterWhisperEngine, spoken: list[Path]) -> None:
    segments = heard(await events(base, spoken[5], word_timestamps=True))
    words = [word for segment in segments for word in segment.words]
    assert "".join(word.text for word in words) == "".join(s.text for s in segments)
    assert all(word.start <= word.end for word in words)
    assert [w.start for w in words] == sorted(w.start for w in words)


async def test_prompt_and_hotwords_set_the_spelling_and_segments_tell_their_confidence(
    base: FasterWhisperEngine, spoken: list[Path]
) -> None:
    prompt = "We left at twelve. Thirty people came, and fifty more in forty minutes."
    plain = await events(base, spoken[2], language="en", beam_size=1)
    prompted = await events(base, spoken[2], language="en", beam_size=1, prompt=prompt)
    favoured = await events(
        base, spoken[2], language="en", beam_size=1, hotwords=("twenty", "thirty")
    )
    assert "20 minutes" in text(plain)
    assert "twenty minutes" in text(prompted)
    assert "twenty minutes" in text(favoured)
    for segment in heard(plain):
        assert -1 < segment.average_logprob < 0
        assert 0 <= segment.no_speech_probability < 0.5


# A random model fails Whisper's checks at every temperature: one path alone tries them all.
FAST: dict[str, object] = {"temperature": 0.0, "beam_size": 2}
OPTIONS: list[dict[str, object]] = [
    {},
    FAST | {"language": "yue"},
    FAST | {"task": Task.TRANSLATE, "language": "de"},
    FAST | {"word_timestamps": True},
    {"temperature": 0.7},
    FAST | {"voice_activity_detection": False},
    FAST | {"condition_on_previous_text": True, "prompt": "Atrium. " * 300},
    FAST | {"prompt": "Atrium. " * 300, "hotwords": ("Atrium", "Flite")},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
async def test_the_large_shape_takes_every_path(
    tiny: FasterWhisperEngine, spoken: list[Path], options: dict[str, object]
) -> None:
    given = await events(tiny, spoken[0], LARGE, **options)
    assert isinstance(given[0].step, TranscriptionInfo)
    assert given[-1].step is None
    if "language" in options:
        assert given[0].step.language == options["language"]


@pytest.mark.parametrize("words", [False, True])
async def test_the_large_shape_decodes_in_batches(
    tiny: FasterWhisperEngine, minutes: Path, words: bool
) -> None:
    options = {"language": "en", "beam_size": 1, "temperature": 0.0, "word_timestamps": words}
    given = await events(tiny, minutes, LARGE, **options)
    assert given[-1].usage.input_audio.total_seconds() > 60


@pytest.mark.parametrize(
    ("model", "options", "field"),
    [
        (LARGE, {"language": "tlh"}, "language"),
        (TURBO, {"task": Task.TRANSLATE}, "task"),
        (ENGLISH, {"language": "de"}, "language"),
        (ENGLISH, {"task": Task.TRANSLATE}, "task"),
        (LARGE, {"hotwords": tuple(f"antidisestablishment{n}" for n in range(64))}, "hotwords"),
    ],
)
async def test_a_model_refuses_by_name_what_it_can_not_do(
    tiny: FasterWhisperEngine,
    spoken: list[Path],
    model: str,
    options: dict[str, object],
    field: str,
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await events(tiny, spoken[0], model, **options)
    assert caught.value.field == field


@pytest.mark.parametrize("length", [0.1, 2.0])
async def test_an_english_only_model_hears_english(
    tiny: FasterWhisperEngine, spoken: list[Path], tmp_path: Path, length: float
) -> None:
    sound = read_wav(spoken[0])[: int(length * RATE)]
    given = await events(tiny, write_wav(tmp_path / "sound", sound), ENGLISH, **FAST)
    info = given[0].step
    assert isinstance(info, TranscriptionInfo)
    assert (info.language, info.language_probability) == ("en", 1.0)


async def test_models_verify_unload_and_load_again(tiny: FasterWhisperEngine) -> None:
    before = tiny.models()[0].verified_at
    await tiny.verify(LARGE)
    after = tiny.models()[0].verified_at
    assert before is not None
    assert after is not None
    assert after > before
    await tiny.unload_model(LARGE)
    await tiny.load_model(LARGE)
    with pytest.raises(NotFound):
        await tiny.verify("gpt-9")
