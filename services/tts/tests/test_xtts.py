"""XTTS without its libraries: texts, voices, options and the licence.

What needs the libraries is in `xtts_contract.py`, for an environment of its own.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from atrium_common.catalogue import Catalogue, CatalogueError, ModelEntry
from atrium_common.domain import Capability
from atrium_common.errors import InvalidArgument
from atrium_common.weights import WeightsError, WeightStore
from atrium_tts.engines import open_engine
from atrium_tts.engines.xtts_latents import Latents, unpack
from atrium_tts.engines.xtts_options import XttsOptions
from atrium_tts.engines.xtts_text import (
    LANGUAGES,
    LIMITS,
    missing_library,
    own_language,
    pieces,
    plain,
    readings,
)
from atrium_tts.engines.xtts_voices import ALIASES, SPEAKERS, speakers_of

GPU = Path(__file__).resolve().parents[3] / "models" / "gpu.yaml"


@pytest.fixture
def xtts_v2() -> ModelEntry:
    """The production catalogue's model."""
    return Catalogue.load(GPU).resolve("xtts-v2", Capability.SPEECH)


def test_the_licence_must_be_accepted_and_the_error_says_how(
    xtts_v2: ModelEntry, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError) as caught:
        WeightStore(tmp_path).ensure(xtts_v2)
    assert caught.value.reason == "LICENSE_NOT_ACCEPTED"
    assert "xtts-v2" in caught.value.message
    assert "CPML" in caught.value.message
    assert "license_accepted: true" in caught.value.message
    assert not list(tmp_path.iterdir())


def test_without_its_libraries_the_error_says_what_to_install(
    xtts_v2: ModelEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not there
    with pytest.raises(CatalogueError, match=r"install atrium-tts\[xtts\]"):
        open_engine("xtts", [xtts_v2], store=WeightStore(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"stream_chunk": 20}}, "options.stream_chunk"),
        ({"options": {"stream_chunk_size": 1}}, "options.stream_chunk_size"),
        ({"options": {"temperature": 0}}, "options.temperature"),
        ({"dtype": "int8"}, "dtype: 'int8' is not one of float32, float16, bfloat16"),
    ],
)
def test_options_are_refused_by_name(
    xtts_v2: ModelEntry, change: dict[str, object], message: str
) -> None:
    with pytest.raises(CatalogueError, match=message.replace("[", r"\[")):
        XttsOptions.of(xtts_v2.model_copy(update=change))


def test_voices_have_ids_and_openais_names() -> None:
    ids = [speaker.id for speaker in SPEAKERS]
    assert len(set(ids)) == len(ids) == 58
    assert {"ana-florence", "alma-maria", "camilla-holmstrom", "eugenio-mataraci"} < set(ids)
    assert set(ALIASES.values()) <= set(ids)
    assert {"alloy", "echo", "fable", "onyx", "nova", "shimmer"} <= set(ALIASES)


def test_a_files_own_voices_are_listed_in_its_order() -> None:
    listed = speakers_of(["My Voice", "Ana Florence"])
    assert [speaker.id for speaker in listed] == ["my-voice", "ana-florence"]
    assert [speaker.gender.value for speaker in listed] == ["", "female"]


def test_regions_of_a_language_are_one() -> None:
    assert len(LANGUAGES) == 17
    assert own_language("zh-CN") == own_language("zh-Hant-TW") == "zh"
    assert own_language("pt-BR") == "pt"
    assert own_language("sv") is None


def test_a_language_without_its_library_is_known() -> None:
    assert missing_library("ja", has=lambda name: name != "fugashi") == "fugashi"
    assert missing_library("ja", has=lambda name: True) is None
    assert missing_library("en", has=lambda name: False) is None


@given(
    text=st.text(st.sampled_from("abc 019.,;!?。、\n一二三"), max_size=400),
    limit=st.integers(5, 90),
    tokens=st.integers(3, 90),
)
def test_a_cut_text_loses_nothing_but_silence(text: str, limit: int, tokens: int) -> None:
    parts = list(pieces(text, limit, fits=lambda part: len(part) <= tokens))
    assert all(0 < len(part) <= min(limit, tokens) for part in parts)
    said = [character for character in text if character.isalnum()]
    assert [character for part in parts for character in part if character.isalnum()] == said


def test_cuts_fall_where_a_speaker_breathes() -> None:
    text = "One sentence is here. Another one, with a clause; and more words than fit in it"
    assert list(pieces(text, 40, fits=lambda part: True)) == [
        "One sentence is here.",
        "Another one, with a clause;",
        "and more words than fit in it",
    ]
    assert list(pieces("x" * 100, LIMITS["zh"], fits=lambda part: True)) == ["x" * 82, "x" * 18]
    assert not list(pieces(" ... -- ", 40, fits=lambda part: True))


def test_numbers_are_made_readable() -> None:
    assert plain("[STOP] İ 12345678901234") == "(stop) i 1 2 3 4 5 6 7 8 9 0 1 2 3 4"
    assert list(readings("v 1990. 12.5", "cs")) == [
        "v 1990. 12.5",
        "v 1990 . 12.5",
        "v 1 9 9 0 . 1 2 . 5",
    ]
    assert list(readings("10", "hi"))[-1] == "एक शून्य"


LATENTS = Latents(
    conditioning=np.zeros((1, 32, 64), np.float32), embedding=np.ones((1, 512, 1), np.float32)
)
OTHER = {"gpt_cond_latent": LATENTS.conditioning, "speaker_embedding": LATENTS.embedding}


def test_a_voice_comes_back_as_it_was() -> None:
    back = unpack(LATENTS.pack(), width=64, embedding=512)
    assert np.array_equal(back.conditioning, LATENTS.conditioning)
    assert np.array_equal(back.embedding, LATENTS.embedding)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04\x95 a pickle",
        LATENTS.pack()[:-1],
        LATENTS.pack() + b"\0",
        save({"gpt_cond_latent": LATENTS.conditioning}),
        save(OTHER | {"more": LATENTS.embedding}),
        save(OTHER | {"gpt_cond_latent": np.zeros((1, 32, 1024), np.float32)}),
        save(OTHER | {"gpt_cond_latent": np.zeros((1, 2000, 64), np.float32)}),
        save(OTHER | {"speaker_embedding": np.full((1, 512, 1), np.nan, np.float32)}),
        save(OTHER | {"speaker_embedding": np.ones((1, 512, 1), np.float64)}),
    ],
    ids=[
        "empty", "pickle", "cut", "longer", "lacks", "more", "wider", "many", "nan", "float64",
    ],
)  # fmt: skip
def test_a_voice_of_another_kind_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument) as caught:
        unpack(data, width=64, embedding=512)
    assert caught.value.field == "voice"
