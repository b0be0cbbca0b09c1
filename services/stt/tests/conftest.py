"""Speech, models and a running service for the transcription tests.

What takes long to make (spoken sentences, a converted model) is kept under
`.atrium/cache/stt-tests` between runs.
"""

import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from atrium_common.catalogue import Catalogue, FolderSource, ModelEntry
from atrium_common.domain import Capability
from atrium_common.weights import WeightStore
from atrium_stt.engines.faster_whisper import FasterWhisperEngine
from atrium_stt.testing.sentences import SENTENCES
from atrium_stt.testing.sounds import RATE, read_wav, write_wav
from atrium_stt.testing.tiny_whisper import make

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / ".atrium" / "cache" / "stt-tests"


@pytest.fixture(scope="session")
def spoken() -> list[Path]:
    """`SENTENCES`, each a WAV of 16 kHz, spoken by Flite's voice "slt"."""
    CACHE.mkdir(parents=True, exist_ok=True)
    files = [CACHE / f"slt-{number}.wav" for number in range(len(SENTENCES))]
    for sentence, file in zip(SENTENCES, files, strict=True):
        if not file.exists():
            part = file.with_suffix(".part")
            subprocess.run(["flite", "-voice", "slt", "-t", sentence, "-o", str(part)], check=True)
            part.rename(file)
    return files


def _joined(files: list[Path], path: Path) -> Path:
    pause = np.zeros(RATE * 3 // 5, np.int16)
    return write_wav(path, np.concatenate([p for file in files for p in (read_wav(file), pause)]))


@pytest.fixture(scope="session")
def ten_sentences(spoken: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All sentences with pauses, 42 s: decoded window by window."""
    return _joined(spoken, tmp_path_factory.mktemp("long") / "once")


@pytest.fixture(scope="session")
def minutes(spoken: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All sentences twice, 85 s: long enough for batches."""
    return _joined(spoken * 2, tmp_path_factory.mktemp("long") / "twice")


@pytest.fixture(scope="session")
def store() -> WeightStore:
    """The installation's own weights."""
    return WeightStore(ROOT / ".atrium" / "models")


@pytest.fixture(scope="session")
def base_entry() -> ModelEntry:
    """Whisper base of the starter catalogue."""
    catalogue = Catalogue.load(ROOT / "models" / "starter.yaml")
    return catalogue.resolve("whisper-base", Capability.TRANSCRIPTION)


@pytest.fixture(scope="session")
async def base(base_entry: ModelEntry, store: WeightStore) -> AsyncIterator[FasterWhisperEngine]:
    """The engine with Whisper base loaded."""
    engine = FasterWhisperEngine([base_entry], store=store)
    await engine.load()
    yield engine
    await engine.close()


def _tiny(name: str, mels: int, vocabulary: int, tokenizer: Path) -> ModelEntry:
    folder = CACHE / name
    if not folder.exists():
        shutil.rmtree(CACHE / f"{name}-part", ignore_errors=True)
        shutil.rmtree(CACHE / f"{name}-part-source", ignore_errors=True)
        part = make(
            CACHE / f"{name}-part", tokenizer_json=tokenizer, mels=mels, vocabulary=vocabulary
        )
        part.rename(folder)
    return ModelEntry(
        id=name,
        service="stt",
        capabilities=(Capability.TRANSCRIPTION,),
        engine="faster-whisper",
        dtype="int8",
        sources=(FolderSource(kind="folder", path=folder),),
    )


@pytest.fixture(scope="session")
async def tiny(base_entry: ModelEntry, store: WeightStore) -> AsyncIterator[FasterWhisperEngine]:
    """The engine with `tiny-large-v3`, `tiny-turbo` (it does not translate), `tiny-english`."""
    CACHE.mkdir(parents=True, exist_ok=True)
    tokenizer = store.ensure(base_entry) / "tokenizer.json"
    large = _tiny("tiny-large-v3", 128, 51866, tokenizer)
    entries = [
        large,
        large.model_copy(update={"id": "tiny-turbo", "options": {"translates": False}}),
        _tiny("tiny-english", 80, 51864, tokenizer),
    ]
    engine = FasterWhisperEngine(entries, store=store)
    await engine.load()
    yield engine
    await engine.close()
