"""The scripts that wrap `atrium models` name commands and options that there are, and no others."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from atrium_common.models_cli import app

ROOT = Path(__file__).parents[3]
SHELL = ROOT / "scripts/download-ai-models.sh"
POWERSHELL = ROOT / "scripts/download-ai-models.ps1"


def commands() -> set[str]:
    return set(get_command(app).commands)  # type: ignore[attr-defined]  # it is a group


def test_both_scripts_name_the_commands_that_there_are() -> None:
    shell = re.search(r"^  ([a-z |]+)\) ;;$", SHELL.read_text(), re.M)
    assert shell is not None
    assert set(shell[1].split(" | ")) == commands()
    powershell = re.search(r"^\$Commands = (.+)$", POWERSHELL.read_text(), re.M)
    assert powershell is not None
    assert set(re.findall(r"'(\w+)'", powershell[1])) == commands()


def test_both_scripts_tell_the_same() -> None:
    def told(script: Path) -> list[str]:
        lines = [line for line in script.read_text().splitlines() if line.startswith("# ")]
        return [re.sub(r"\.(sh|ps1)| +", " ", line).strip() for line in lines]

    variables = re.findall(r"^#   (\w+)", SHELL.read_text(), re.M)
    assert {"ATRIUM_CATALOGUE", "ATRIUM_MODELS_DIR", "ATRIUM_OFFLINE"} <= set(variables)
    assert told(SHELL) == told(POWERSHELL)


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [str(SHELL), *words],
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_shell_script_passes_words_on(tmp_path: Path) -> None:
    told = run("--gpu", "list", "--json", "--service", "stt", ATRIUM_MODELS_DIR=str(tmp_path))
    assert told.returncode == 0, told.stderr
    assert '"whisper-large-v3-turbo"' in told.stdout
    missing = run("no-such-model", ATRIUM_MODELS_DIR=str(tmp_path))
    assert missing.returncode == 1
    assert "There is no 'no-such-model'" in missing.stderr


@pytest.mark.parametrize(
    ("words", "environment", "told"),
    [
        (["--help"], {}, "scripts/download-ai-models.sh --gpu qwen3-8b"),
        (["list"], {"ATRIUM_CATALOGUE": "nowhere.yaml"}, "there is no catalogue nowhere.yaml"),
    ],
    ids=["help", "catalogue"],
)
def test_the_shell_script_says_what_it_needs(
    words: list[str], environment: dict[str, str], told: str
) -> None:
    result = run(*words, **environment)
    assert told in result.stdout + result.stderr


def test_the_shell_script_is_clean() -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"
    checked = subprocess.run([shellcheck, SHELL], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
