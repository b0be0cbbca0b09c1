"""The wire holds: it lints, the committed stubs are what it generates, and nothing that was
released breaks. `make protos` regenerates the stubs."""

import filecmp
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUF = Path(sys.executable).parent / "buf"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def files_under(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_every_element_is_named_and_commented_as_agreed() -> None:
    lint = run(BUF, "lint", "protos")
    assert lint.returncode == 0, lint.stdout + lint.stderr


def test_the_committed_stubs_are_what_the_protos_generate(tmp_path: Path) -> None:
    generated = run(ROOT / "scripts" / "protos.sh", tmp_path)
    assert generated.returncode == 0, generated.stderr
    fresh, committed = tmp_path / "atrium", ROOT / "libs" / "common" / "src" / "atrium"
    assert files_under(fresh) == files_under(committed)
    _, different, failed = filecmp.cmpfiles(fresh, committed, files_under(fresh), shallow=False)
    assert (different, failed) == ([], []), "run `make protos` and commit"


def test_nothing_that_was_released_breaks() -> None:
    tag = run("git", "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*")
    released = f".git#tag={tag.stdout.strip()},subdir=protos"
    # Before the first release nothing can break; the rules themselves are still read.
    against = released if tag.returncode == 0 else "protos"
    breaking = run(BUF, "breaking", "protos", "--against", against)
    assert breaking.returncode == 0, breaking.stdout + breaking.stderr


@pytest.mark.parametrize(
    ("package", "service", "methods"),
    [
        ("llm", "TextGenerationService", 6),
        ("stt", "TranscriptionService", 3),
        ("tts", "SpeechSynthesisService", 5),
        ("text2image", "TextToImageService", 2),
        ("img2img", "ImageEditService", 2),
        ("img2text", "ImageUnderstandingService", 5),
    ],
)
def test_every_answer_that_streams_carries_usage(package: str, service: str, methods: int) -> None:
    """A caller that leaves is charged by the last message that it received."""
    module = __import__(f"atrium.{package}.v1.{package}_pb2", fromlist=["DESCRIPTOR"])
    described = module.DESCRIPTOR.services_by_name[service]
    assert len(described.methods) >= methods
    for method in described.methods:
        if method.server_streaming:
            usage = method.output_type.fields_by_name["usage"]
            assert usage.message_type.full_name == "atrium.common.v1.Usage"
