"""The check of the cards: what fits is let through, what does not is named with numbers."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrium_common.catalogue import Catalogue
from atrium_common.preflight.__main__ import main
from atrium_common.preflight.cards import Card, installed, read
from atrium_common.preflight.settings import ShareSettings
from atrium_common.preflight.shares import Plan, make_plan

CATALOGUE = """
models:
  - {id: chat, service: llm, capabilities: [chat], engine: vllm, memory_mib: 20000,
     context_length: 32768}
  - {id: ear, service: stt, capabilities: [transcription], engine: faster-whisper,
     memory_mib: 3000}
  - {id: ear-2, service: stt, capabilities: [transcription], engine: faster-whisper,
     memory_mib: 5000}
  - {id: reader, service: img2text, capabilities: [ocr], engine: tesseract, memory_mib: 900}
  - {id: mouth, service: tts, capabilities: [speech], engine: xtts}
"""
CARD = Card(0, "GPU-a", "a card", 24_000)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "catalogue.yaml"
    path.write_text(CATALOGUE, encoding="utf-8")
    return path


def plan(file: Path, *cards: Card, reserve_mib: int = 0, **services: ShareSettings) -> Plan:
    catalogue = Catalogue.load(file)
    return make_plan(catalogue, services, cards or (CARD,), reserve_mib=reserve_mib)


def share(*gpu: str, **values: object) -> ShareSettings:
    return ShareSettings.model_validate({"gpu": gpu, **values})


def test_shares_are_summed_by_card(file: Path) -> None:
    made = plan(file, llm=share("0", gpu_memory_utilization=0.9), stt=share("0"))
    assert [(each.service, each.mib) for each in made.shares] == [("llm", 21_600), ("stt", 8_000)]
    assert made.held_mib(CARD) == 29_600
    assert made.problems == (
        "card 0 is overfull: 29600 MiB are planned, 24000 MiB of 24000 may be used",
    )


def test_a_budget_bounds_what_models_hold_together(file: Path) -> None:
    assert plan(file, stt=share("0", memory_budget_mib=5000)).held_mib(CARD) == 5000
    assert plan(file, stt=share("GPU-a", memory_budget_mib=6000)).problems == ()
    (problem,) = plan(file, stt=share("0", memory_budget_mib=4000)).problems
    assert problem == "stt: ear-2 takes 5000 MiB, its memory_budget_mib is 4000"


def test_a_share_that_is_too_small_for_its_model_is_named(file: Path) -> None:
    (problem,) = plan(file, llm=share("0", gpu_memory_utilization=0.5)).problems
    assert problem == "llm: chat takes 20000 MiB, its gpu_memory_utilization of 0.5 gives 12000"
    shorter = share("0", gpu_memory_utilization=0.5, max_model_len=4096)
    assert plan(file, llm=shorter).problems == ()


def test_vllm_spreads_over_its_cards_and_nobody_else_does(file: Path) -> None:
    other = Card(1, "GPU-b", "a card", 24_000)
    made = plan(file, CARD, other, llm=share("0", "1", gpu_memory_utilization=0.5))
    assert (made.held_mib(CARD), made.held_mib(other), made.problems) == (12_000, 12_000, ())
    made = plan(file, CARD, other, stt=share("0", "1"))
    assert (made.held_mib(CARD), made.held_mib(other)) == (8_000, 0)


def test_a_card_that_is_not_there_is_named(file: Path) -> None:
    (problem,) = plan(file, stt=share("1")).problems
    assert problem == "stt asks for card 1; there are: 0"


def test_the_processor_is_no_card(file: Path) -> None:
    made = plan(file, img2text=share("0"), stt=share())
    assert (made.shares, made.problems) == ((), ())


def test_a_model_that_says_nothing_is_listed_not_guessed(file: Path) -> None:
    made = plan(file, tts=share("0"))
    assert (made.unknown, made.problems) == (("mouth",), ())


def test_a_service_without_models_is_not_to_be_started(file: Path) -> None:
    (problem,) = plan(file, img2img=share("0")).problems
    assert problem.startswith("img2img is started, but no model of it is offered")


@given(st.integers(1, 60_000), st.integers(0, 2_000))
def test_nothing_overfull_is_let_through(
    tmp_path_factory: pytest.TempPathFactory, memory: int, reserve: int
) -> None:
    path = tmp_path_factory.mktemp("models") / "catalogue.yaml"
    path.write_text(CATALOGUE, encoding="utf-8")
    card = Card(0, "", "a card", memory)
    made = plan(path, card, reserve_mib=reserve, stt=share("0"))
    assert (made.problems == ()) == (memory - reserve >= 8_000)


def test_the_drivers_table_is_read() -> None:
    table = "1, GPU-b, NVIDIA L4, 23034\n0, GPU-a, NVIDIA RTX A6000, 49140\n\n"
    assert [(card.index, card.memory_mib) for card in read(table)] == [(0, 49_140), (1, 23_034)]


@pytest.mark.parametrize(
    "script", ["exit 9", "echo 'No devices were found'"], ids=["fails", "answers otherwise"]
)
def test_a_driver_that_does_not_answer_is_none(tmp_path: Path, script: str) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert installed(str(program)) is None
    assert installed(str(tmp_path / "absent")) is None


def test_the_program_prints_a_table_and_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("ATRIUM_CATALOGUE", str(file))
    monkeypatch.setenv("ATRIUM_PREFLIGHT_PROFILES", "text,speech,observability")
    monkeypatch.setenv("ATRIUM_PREFLIGHT_CARDS_MIB", "24576")
    monkeypatch.setenv("ATRIUM_LLM_GPU", "0")
    monkeypatch.setenv("ATRIUM_LLM_GPU_MEMORY_UTILIZATION", "0.85")
    assert main() == 0
    assert "llm            20889 MiB  chat" in capsys.readouterr().out
    monkeypatch.setenv("ATRIUM_STT_GPU", "0")
    assert main() == 1
    out = capsys.readouterr().out
    assert "refused: card 0 is overfull: 28889 MiB are planned, 24076 MiB of 24576" in out
    monkeypatch.setenv("ATRIUM_MODELS", "nobody")
    assert main() == 1
    assert "there is no model 'nobody'" in capsys.readouterr().out
