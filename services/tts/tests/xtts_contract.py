"""The XTTS engine for real, through the library's own loader, on a small random checkpoint.

`make test-xtts` names this file to pytest in an environment of its own. It is not called
``test_…``, because the other environment has no coqui-tts and would have to skip it.
"""

import asyncio
import hashlib
import io
import os
import shutil
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import grpc.aio
import numpy as np
import pytest
import torch
from TTS.tts.configs.xtts_config import XttsConfig
from TTS.tts.layers.xtts.tokenizer import VoiceBpeTokenizer
from TTS.tts.models.xtts import Xtts

from atrium.tts.v1 import tts_pb2 as pb
from atrium.tts.v1.tts_pb2_grpc import SpeechSynthesisServiceStub
from atrium_common.catalogue import Catalogue, FolderSource, ModelEntry
from atrium_common.chunks import split
from atrium_common.domain import Capability, ModelState
from atrium_common.errors import (
    AtriumError,
    Conflict,
    InvalidArgument,
    MediaError,
    NotFound,
    Unavailable,
)
from atrium_common.testing import FakeAdmission, gateway_metadata, running_server
from atrium_common.weights import WeightsError, WeightStore
from atrium_tts.domain import SpeakRequest, Voice
from atrium_tts.engines.base import ClonesVoices, Samples
from atrium_tts.engines.router import EngineRouter
from atrium_tts.engines.xtts import XttsEngine
from atrium_tts.engines.xtts_latents import Latents, unpack
from atrium_tts.engines.xtts_text import LANGUAGES, missing_library, plain, readings
from atrium_tts.engines.xtts_vocoder import StreamingVocoder
from atrium_tts.engines.xtts_voices import SPEAKERS
from atrium_tts.servicer import SpeechServicer
from atrium_tts.speech import Speaker
from atrium_tts.testing.tiny_xtts import make
from atrium_tts.voices import VoiceStore

MODEL = "tiny-xtts"
CHUNK = 5
STRANGER = Voice(id="bob", name="Bob", models=(MODEL,), languages=("en",))
SAMPLES_PER_TOKEN = 1024 * 24_000 / 22_050


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The four files of a checkpoint, 93 MB; made in a second, so they are not kept."""
    folder = make(tmp_path_factory.mktemp("xtts") / "checkpoint")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def entry(checkpoint: Path) -> ModelEntry:
    """The catalogue entry of the checkpoint."""
    return ModelEntry(
        id=MODEL,
        service="tts",
        capabilities=(Capability.SPEECH,),
        engine="xtts",
        license="CPML",
        accept_license=True,
        license_accepted=True,
        options={"stream_chunk_size": CHUNK, "device": "cpu"},
        sources=(FolderSource(kind="folder", path=checkpoint),),
    )


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> WeightStore:
    """An empty store: the weights are in an operator's folder."""
    return WeightStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
async def engine(entry: ModelEntry, store: WeightStore) -> AsyncIterator[XttsEngine]:
    """The engine, loaded."""
    engine = XttsEngine([entry], store=store)
    await engine.load()
    yield engine
    await engine.close()


def voice(engine: XttsEngine, name: str = "ana-florence") -> Voice:
    return next(known for known in engine.voices() if known.id == name)


def ask(engine: XttsEngine, text: str = "Good day.", **fields: object) -> SpeakRequest:
    given = {"voice": voice(engine), "language": "en", "seed": 1} | fields
    return SpeakRequest(model=MODEL, text=text, **given)  # type: ignore[arg-type]


async def speak(engine: XttsEngine, request: SpeakRequest) -> list[Samples]:
    return [piece async for piece in engine.speak(request)]


def babble(seconds: float = 3.0, rate: int = 24_000) -> Samples:
    """A hum with formants, in syllables."""
    time = np.arange(int(seconds * rate)) / rate
    tone = sum(np.sin(2 * np.pi * 120 * n * time) / n for n in range(1, 20))
    return (0.2 * tone * (np.sin(2 * np.pi * 3 * time) > -0.5)).astype(np.float32)


@pytest.fixture(scope="session")
async def latents(engine: XttsEngine) -> bytes:
    """A cloned voice."""
    return await engine.clone(MODEL, babble(), 24_000)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


async def test_the_librarys_loader_reads_it_and_changes_nothing(
    checkpoint: Path, entry: ModelEntry, store: WeightStore
) -> None:
    before = digests(checkpoint)
    assert set(before) == {"config.json", "model.pth", "vocab.json", "speakers_xtts.pth"}
    engine = XttsEngine([entry], store=store)
    await engine.load()
    (info,) = engine.models()
    assert (info.state, info.license) == (ModelState.READY, "CPML")
    assert info.verified_at is not None
    assert [known.id for known in engine.voices()] == [speaker.id for speaker in SPEAKERS]
    assert {known.license for known in engine.voices()} == {"CPML"}
    assert engine.sample_rate(MODEL) == 24_000
    await engine.close()
    assert digests(checkpoint) == before


async def test_without_the_licence_nothing_loads_and_the_error_says_how(
    entry: ModelEntry, store: WeightStore
) -> None:
    engine = XttsEngine([entry.model_copy(update={"license_accepted": False})], store=store)
    with pytest.raises(WeightsError, match="set license_accepted: true in the catalogue") as caught:
        await engine.load()
    assert caught.value.reason == "LICENSE_NOT_ACCEPTED"
    (info,) = engine.models()
    assert info.state is ModelState.FAILED
    assert "license_accepted: true" in info.detail
    with pytest.raises(Unavailable):
        await speak(engine, ask(engine))
    await engine.close()


async def test_code_in_a_checkpoint_does_not_run(
    checkpoint: Path, entry: ModelEntry, store: WeightStore, tmp_path: Path
) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    folder = tmp_path / "bad"
    folder.mkdir()
    for name in ("config.json", "vocab.json", "speakers_xtts.pth"):
        (folder / name).symlink_to(checkpoint / name)
    torch.save({"model": {}, "config": Code()}, folder / "model.pth")
    source = FolderSource(kind="folder", path=folder)
    engine = XttsEngine([entry.model_copy(update={"sources": (source,)})], store=store)
    with pytest.raises(Unavailable, match="could not be loaded"):
        await engine.load()
    assert not (tmp_path / "ran").exists()
    await engine.close()


async def test_audio_leaves_while_it_is_made(engine: XttsEngine) -> None:
    given = await speak(engine, ask(engine))
    assert len(given) >= 3
    # The first piece is a chunk of tokens, less what is faded into the next.
    assert len(given[0]) == pytest.approx(CHUNK * SAMPLES_PER_TOKEN - 1024, abs=512)
    audio = np.concatenate(given)
    assert audio.dtype == np.float32
    assert 0 < np.abs(audio).max() <= 1
    assert len(audio) < 3 * 24_000  # a model that never ends is ended


async def test_a_seed_repeats_and_another_does_not(engine: XttsEngine) -> None:
    drawn = []
    for seed in (7, 7, 8, None):
        audio = engine.speak(ask(engine, "Hi.", seed=seed))
        async with aclosing(audio):  # type: ignore[type-var]
            drawn.append(await anext(audio))
    assert np.array_equal(drawn[0], drawn[1])
    assert not any(np.array_equal(drawn[1], other) for other in drawn[2:])


async def test_four_callers_hear_what_each_would_alone(engine: XttsEngine, latents: bytes) -> None:
    requests = [
        ask(engine, "One.", seed=None, temperature=0.001),
        ask(engine, "Two.", voice=voice(engine, "craig-gutsy"), seed=2),
        ask(engine, "Tres.", language="es", latents=latents, seed=3),
        ask(engine, "Four.", speed=1.5, seed=4),
    ]
    alone = [await speak(engine, request) for request in requests]
    together = await asyncio.gather(*(speak(engine, request) for request in requests))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(np.concatenate(one), np.concatenate(other))


async def test_a_listener_who_leaves_stops_the_work_within_a_chunk(
    engine: XttsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = 0
    decode = StreamingVocoder.forward

    def count(self: StreamingVocoder, frames: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        nonlocal decoded
        decoded += 1
        return decode(self, frames, g)

    monkeypatch.setattr(StreamingVocoder, "forward", count)
    audio = engine.speak(
        ask(engine, "This text is cut into several pieces, of three chunks each. " * 20)
    )
    async with aclosing(audio):  # type: ignore[type-var]
        await anext(audio)
    # One was heard, one lay ready, one was under way.
    assert 1 <= decoded <= 3
    await engine.unload_model(MODEL)  # nobody uses it any more
    await engine.load_model(MODEL)


async def test_speed_changes_the_length(engine: XttsEngine) -> None:
    slow, fast = [
        sum(map(len, await speak(engine, ask(engine, "Hi.", speed=speed, temperature=0.001))))
        for speed in engine.speeds(MODEL)
    ]
    assert slow / fast == pytest.approx(1.5 / 0.7, rel=0.05)


async def test_a_cloned_voice_speaks(engine: XttsEngine, latents: bytes) -> None:
    assert isinstance(engine, ClonesVoices)
    assert engine.clones(MODEL)
    made = unpack(latents, width=64, embedding=512)
    assert made.conditioning.shape == (1, 32, 64)
    cloned = await speak(engine, ask(engine, "Hi.", latents=latents))
    assert len(cloned) >= 2
    own = engine.speak(ask(engine, "Hi."))
    async with aclosing(own):  # type: ignore[type-var]
        assert not np.array_equal(await anext(own), cloned[0])


async def test_cloning_twice_gives_one_voice_at_any_rate(
    engine: XttsEngine, latents: bytes
) -> None:
    assert await engine.clone(MODEL, babble(), 24_000) == latents
    other = unpack(await engine.clone(MODEL, babble(rate=16_000), 16_000), width=64, embedding=512)
    first = unpack(latents, width=64, embedding=512)
    assert float((first.embedding * other.embedding).sum()) > 0.9


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(96_000, np.float32),
        babble(0.6),
        np.full(96_000, np.nan, np.float32),
        np.zeros(0, np.float32),
    ],
    ids=["silence", "short", "nan", "empty"],
)
async def test_a_recording_without_speech_is_refused(engine: XttsEngine, samples: Samples) -> None:
    with pytest.raises(MediaError):
        await engine.clone(MODEL, samples, 24_000)


@pytest.mark.parametrize(
    ("fields", "error", "field"),
    [
        ({"language": "sv"}, InvalidArgument, "language"),
        ({"language": "ja"}, InvalidArgument, "language"),
        ({"instructions": "Whisper."}, InvalidArgument, "instructions"),
        ({"voice": STRANGER}, NotFound, "voice"),
    ],
)
def test_what_it_can_not_do_is_refused_by_name(
    engine: XttsEngine, fields: dict[str, object], error: type[AtriumError], field: str
) -> None:
    with pytest.raises(error) as caught:
        engine.check(ask(engine, **fields))
    assert caught.value.field == field


def test_a_language_without_its_library_says_what_is_missing(engine: XttsEngine) -> None:
    assert missing_library("ja") == "cutlet"
    with pytest.raises(InvalidArgument, match=r"cutlet is installed: atrium-tts\[xtts-languages\]"):
        engine.check(ask(engine, language="ja-JP"))
    assert "ja" not in voice(engine).languages
    assert "zh" in voice(engine).languages


async def test_a_voice_of_another_model_is_refused(engine: XttsEngine) -> None:
    other = Latents(
        conditioning=np.zeros((1, 32, 1024), np.float32),
        embedding=np.zeros((1, 512, 1), np.float32),
    )
    with pytest.raises(InvalidArgument) as caught:
        await speak(engine, ask(engine, latents=other.pack()))
    assert caught.value.field == "voice"


async def test_a_busy_model_is_not_unloaded(engine: XttsEngine) -> None:
    audio = engine.speak(ask(engine))
    async with aclosing(audio):  # type: ignore[type-var]
        await anext(audio)
        with pytest.raises(Conflict):
            await engine.unload_model(MODEL)
    await engine.verify(MODEL)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
async def test_half_precision_speaks_and_clones_the_same_voice(
    entry: ModelEntry, store: WeightStore, latents: bytes, dtype: str
) -> None:
    engine = XttsEngine([entry.model_copy(update={"dtype": dtype})], store=store)
    await engine.load()
    audio = engine.speak(ask(engine, "Hi."))
    async with aclosing(audio):  # type: ignore[type-var]
        assert np.isfinite(await anext(audio)).all()
    made = unpack(await engine.clone(MODEL, babble(), 24_000), width=64, embedding=512)
    first = unpack(latents, width=64, embedding=512)
    assert np.abs(made.conditioning - first.conditioning).max() < 0.05
    assert np.allclose(made.embedding, first.embedding, atol=1e-5)
    await engine.close()


def test_decoding_only_what_is_new_changes_nothing(checkpoint: Path) -> None:
    config = XttsConfig()
    config.load_json(str(checkpoint / "config.json"))
    decoder = Xtts(config).hifigan_decoder.waveform_decoder.eval()
    frames, embedding = torch.randn(1, 64, 70), torch.randn(1, 512, 1)
    vocoder = StreamingVocoder(decoder)
    with torch.inference_mode():
        known = 0
        for count in (45, 70, 70):
            given = vocoder(frames[..., :count], g=embedding)
            whole = decoder(frames[..., :count], g=embedding)
            assert given.shape == whole.shape
            read = max(0, known - 4) * 256  # the library fades 1024 samples into each other
            assert (given - whole)[..., read:].abs().max() < 1e-6
            known = count


def upload(samples: Samples) -> list[pb.CreateVoiceRequest]:
    """The messages that make a voice of a recording, as WAV of 24 kHz."""
    target = io.BytesIO()
    with wave.open(target, "wb") as out:
        out.setparams((1, 2, 24_000, 0, "NONE", ""))
        out.writeframes((samples * 32_767).astype(np.int16).tobytes())
    data = target.getvalue()
    end = {"sha256": hashlib.sha256(data).digest(), "size": len(data)}
    return [
        pb.CreateVoiceRequest(config=pb.VoiceConfig(model=MODEL, name="Mine", consent=True)),
        *(pb.CreateVoiceRequest(chunk={"data": piece}) for piece in split(data)),
        pb.CreateVoiceRequest(end=end),
    ]


async def test_a_tenant_clones_a_voice_and_speaks_with_it_through_the_service(
    engine: XttsEngine, entry: ModelEntry, tmp_path: Path
) -> None:
    router = EngineRouter({"xtts": engine}, {MODEL: "xtts"})
    servicer = SpeechServicer(
        router,
        Catalogue(models=(entry,)),
        speaker=Speaker(router, max_speeches=8, max_queue=8),
        voices=VoiceStore(tmp_path, limit=4),
    )
    async with (
        FakeAdmission() as admission,
        running_server(servicer, router, admission=admission) as (channel, _),
    ):
        stub = SpeechSynthesisServiceStub(channel)
        mine, other = gateway_metadata(tenant="acme"), gateway_metadata(tenant="globex")
        made = await stub.CreateVoice(iter(upload(babble(6.5))), metadata=mine)
        request = pb.SynthesizeSpeechRequest(
            model=MODEL,
            text="Hi.",
            voice=made.voice.id,
            language="zh-CN",
            format=pb.AUDIO_FORMAT_PCM,
        )
        answers = [answer async for answer in stub.SynthesizeSpeech(request, metadata=mine)]
        usage = answers[-1].usage
        assert usage.characters == 3
        assert 0.2 < usage.output_audio.ToMilliseconds() / 1000 < 2
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            _ = [answer async for answer in stub.SynthesizeSpeech(request, metadata=other)]
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


TEXTS = (
    "12.5 1,000,000.50 $20 20€ £3.50 1st 2nd 50% a@b.c № 5 ½ 1e10 12:30 2024-05-01 #1 °C",
    "0.000001", "3.", "v roce 1990. a", "5-й", "1er", "100번", "1번째", "١٢٣", "१२३",
    "9" * 40, "1.2.3.4", "😀", "[STOP][en]", "a\u202eb", "\uff13\uff14",
)  # fmt: skip


@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "ja"])
def test_numbers_and_symbols_are_readable_in_every_language(
    checkpoint: Path, language: str
) -> None:
    tokenizer = VoiceBpeTokenizer(checkpoint / "vocab.json")
    for text in TEXTS:
        problems = []
        for reading in readings(plain(text), language):
            try:
                tokens = tokenizer.encode(reading, lang=language)
            except Exception as err:  # whatever num2words raises
                problems.append(err)
            else:
                break
        else:
            pytest.fail(f"{text!r}: {problems}")
        tag = "[zh-cn]" if language == "zh" else f"[{language}]"
        assert tokens[0] == tokenizer.tokenizer.token_to_id(tag)
        assert tokenizer.tokenizer.token_to_id("[STOP]") not in tokens
