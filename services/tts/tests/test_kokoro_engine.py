"""The engine around Kokoro's network, which a stand-in replaces: turns, cuts, refusals."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from atrium_common.catalogue import CatalogueError, FolderSource, ModelEntry, WeightFile
from atrium_common.domain import Capability, ModelState
from atrium_common.errors import Conflict, InvalidArgument, NotFound, Unavailable
from atrium_common.weights import WeightStore
from atrium_tts.domain import Gender, SpeakRequest, Voice
from atrium_tts.engines.base import Samples
from atrium_tts.engines.kokoro import KokoroEngine, engine
from atrium_tts.engines.kokoro.model import BLANK, SAMPLE_RATE, framed, limited
from atrium_tts.engines.kokoro.phonemes import MOST

OPENAI = "alloy ash ballad coral echo fable onyx nova sage shimmer verse marin cedar"


class Network:
    """Stands in for the network: as many samples as symbols, a moment each time."""

    said: list[str]

    def __init__(self, folder: Path, *, threads: int) -> None:
        assert folder.is_dir()
        assert threads >= 1
        self.said = []
        Network.last = self

    last: "Network"

    def speak(self, symbols: str, *, voice: str, speed: float) -> Samples:
        time.sleep(0.02)
        self.said.append(symbols)
        return np.ones(len(symbols), np.float32)


def entry(folder: Path, **fields: object) -> ModelEntry:
    return ModelEntry.model_validate(
        {"id": "kokoro-82m", "service": "tts", "capabilities": [Capability.SPEECH]}
        | {"engine": "kokoro", "sources": [FolderSource(kind="folder", path=folder).model_dump()]}
        | fields
    )


@pytest.fixture
async def kokoro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KokoroEngine]:
    monkeypatch.setattr(engine, "KokoroModel", Network)
    (tmp_path / "model.onnx").touch()
    file = WeightFile(name="model.onnx", sha256=None)
    source = FolderSource(kind="folder", path=tmp_path, files=(file,)).model_dump()
    made = KokoroEngine([entry(tmp_path, sources=[source])], store=WeightStore(tmp_path / "none"))
    yield made
    await made.close()


def request(kokoro: KokoroEngine, text: str = "Good morning.", **fields: object) -> SpeakRequest:
    voice = kokoro.voices()[0]
    facts = {"model": "kokoro-82m", "voice": voice, "text": text, "language": "en-us"} | fields
    return SpeakRequest(**facts)  # type: ignore[arg-type]


async def spoken(kokoro: KokoroEngine, asked: SpeakRequest) -> list[Samples]:
    return [piece async for piece in kokoro.speak(asked)]


async def test_an_utterance_is_one_piece_and_a_very_long_one_is_cut(kokoro: KokoroEngine) -> None:
    assert len(await spoken(kokoro, request(kokoro))) == 1
    long = "The library opens at nine in the morning, and closes late. " * 30
    given = await spoken(kokoro, request(kokoro, long))
    assert len(given) > 1
    assert all(0 < piece.size <= MOST for piece in given)
    assert all(piece.endswith(".") for piece in Network.last.said[1:])


async def test_who_leaves_stops_the_work_at_the_next_piece(kokoro: KokoroEngine) -> None:
    long = "The library opens at nine in the morning, and closes late. " * 200
    pieces = kokoro.speak(request(kokoro, long))
    await anext(pieces)
    await pieces.aclose()  # type: ignore[attr-defined]
    begun = len(Network.last.said)
    assert begun <= 4  # the first, and what was made while it was on its way; and `verify`
    await spoken(kokoro, request(kokoro))
    assert len(Network.last.said) == begun + 1


@pytest.mark.parametrize("text", ["?!", " ... ", "—"])
async def test_a_text_without_sound_is_a_short_silence(kokoro: KokoroEngine, text: str) -> None:
    (silence,) = await spoken(kokoro, request(kokoro, text))
    assert not silence.any()
    assert silence.size == BLANK * SAMPLE_RATE


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"language": "ja"}, "language"),
        ({"language": "zh"}, "language"),
        ({"language": "de"}, "language"),
        ({"seed": 0}, "seed"),
        ({"temperature": 0.0}, "temperature"),
        ({"instructions": "Whisper."}, "instructions"),
        ({"latents": b"of another engine"}, "voice"),
        ({"voice": Voice(id="jf_alpha", name="x", models=(), languages=())}, "voice"),
    ],
)
async def test_what_kokoro_can_not_do_is_refused_by_name(
    kokoro: KokoroEngine, fields: dict[str, object], field: str
) -> None:
    asked = request(kokoro, **fields)
    with pytest.raises(InvalidArgument) as caught:
        kokoro.check(asked)
    assert caught.value.field == field
    with pytest.raises(InvalidArgument):
        await spoken(kokoro, asked)


def test_voices_are_named_and_each_of_openais_names_is_one_voice(kokoro: KokoroEngine) -> None:
    voices = kokoro.voices()
    assert len(voices) == 41
    assert {voice.license for voice in voices} == {"Apache-2.0"}
    assert Counter(voice.gender for voice in voices) == {Gender.FEMALE: 21, Gender.MALE: 20}
    assert all(list(voice.models) == ["kokoro-82m"] for voice in voices)
    aliases = [alias for voice in voices for alias in voice.aliases]
    assert sorted(aliases) == sorted(OPENAI.split())
    first = {language: voice.id for voice in reversed(voices) for language in voice.languages}
    assert first.keys() == set(kokoro.languages("kokoro-82m"))
    assert (first["en-us"], first["en-gb"], first["it"]) == ("af_heart", "bf_emma", "if_sara")


async def test_a_model_loads_verifies_unloads_and_loads_when_it_is_asked(
    kokoro: KokoroEngine,
) -> None:
    assert kokoro.models()[0].state is ModelState.UNLOADED
    await kokoro.load()
    (info,) = kokoro.models()
    assert (info.state, info.verified_at is not None) == (ModelState.READY, True)
    running = kokoro.speak(request(kokoro))
    await anext(running)
    with pytest.raises(Conflict):
        await kokoro.unload_model("kokoro-82m")
    await running.aclose()  # type: ignore[attr-defined]
    await kokoro.unload_model("kokoro-82m")
    assert kokoro.models()[0].state is ModelState.UNLOADED
    with pytest.raises(Unavailable):
        await kokoro.verify("kokoro-82m")
    assert await spoken(kokoro, request(kokoro))
    with pytest.raises(NotFound):
        await kokoro.load_model("kokoro-83m")


async def test_a_model_without_files_fails_and_says_why(tmp_path: Path) -> None:
    made = KokoroEngine([entry(tmp_path / "nowhere")], store=WeightStore(tmp_path / "none"))
    with pytest.raises(Unavailable, match="nowhere"):
        await made.load()
    (info,) = made.models()
    assert info.state is ModelState.FAILED
    assert "nowhere" in info.detail
    await made.close()


@pytest.mark.parametrize("wrong", [{"options": {"thread": 1}}, {"dtype": "float16"}])
def test_an_entry_says_nothing_that_is_not_honoured(
    tmp_path: Path, wrong: dict[str, object]
) -> None:
    with pytest.raises(CatalogueError, match="kokoro-82m"):
        KokoroEngine([entry(tmp_path, **wrong)], store=WeightStore(tmp_path))


@pytest.mark.parametrize(("before", "behind"), [(0.0, 0.0), (0.02, 0.5), (0.4, 0.1)])
def test_silence_around_speech_is_always_the_same(before: float, behind: float) -> None:
    tone = np.sin(np.arange(SAMPLE_RATE) / 20, dtype=np.float32)
    gaps = [np.full(round(seconds * SAMPLE_RATE), 1e-4, np.float32) for seconds in (before, behind)]
    audio = framed(np.concatenate([gaps[0], tone, gaps[1]]), 0.04, 0.3)
    loud = np.flatnonzero(np.abs(audio) > 0.01)
    assert loud[0] / SAMPLE_RATE == pytest.approx(0.04, abs=0.011)
    assert audio.size / SAMPLE_RATE == pytest.approx(1.34, abs=0.011)


def test_silence_stays_silence() -> None:
    audio = framed(np.zeros(SAMPLE_RATE, np.float32), 0.04, 0.3)
    assert audio.size == round(0.34 * SAMPLE_RATE)
    assert not audio.any()


def test_loud_samples_stay_below_one_and_others_as_they_are() -> None:
    audio = np.array([0, 0.5, -0.9, 1.0, -5.0], np.float32)
    bent = limited(audio)
    assert np.array_equal(bent[:3], audio[:3])
    assert 0.9 < bent[3] < 1
    assert -1 <= bent[4] < -0.99
