"""Variables, make targets and commands that a page names exist; settings are told in full."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import config_reference
import pytest
import typer.main
from config_reference import BEGIN, END, PAGE
from typer.core import TyperCommand, TyperGroup

from atrium_gateway.cli.app import app
from atrium_gateway.cli.group import DefaultsToShow
from tests.kit.pages import ROOT, Page, pages

PAGES = pages()
MADE_UP = {"ATRIUM_X", "ATRIUM_KEY_ID"}
"""Names that stand for any."""
DEPLOYED = [
    ROOT / ".env.example",
    *sorted(ROOT.glob("docker-compose*.yml")),
    *sorted((ROOT / "deploy").rglob("*.env")),
    *sorted((ROOT / "deploy").rglob("*.sh")),
]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


@functools.cache
def by_hand() -> set[str]:
    """Variables that no settings class has; the page lists them in tables of its own."""
    text = PAGE.read_text()
    outside = text.partition(BEGIN)[0] + text.partition(END)[2]
    return set(re.findall(r"`((?:ATRIUM|HF|OTEL)_[A-Z0-9_]+\*?)", outside))


def test_the_page_of_settings_is_what_the_classes_say() -> None:
    current = PAGE.read_text()
    assert current == config_reference.page(current), "make docs"


@pytest.mark.parametrize("section", config_reference.sections(), ids=lambda each: each.title)
def test_every_setting_is_explained(section: config_reference.Section) -> None:
    texts = config_reference.docstrings(section.owner)
    assert set(section.fields) <= set(texts)
    assert all(text.endswith(".") for text in texts.values())


@pytest.mark.parametrize("path", [page.path for page in PAGES] + DEPLOYED, ids=lambda p: p.name)
def test_every_variable_exists(path: Path) -> None:
    known = config_reference.variables() | by_hand() | MADE_UP
    families = tuple(name.rstrip("*") for name in by_hand() if name.endswith("*"))
    # `ATRIUM_LLM_*` and `ATRIUM_<SERVICE>_GPU` stand for several; some of each must be there.
    text = re.sub(r"ATRIUM_<SERVICE>_", "ATRIUM_LLM_", path.read_text())
    unknown = set()
    for name, star in re.findall(r"\b(ATRIUM_[A-Z0-9_]*[A-Z0-9])(_\*|_?)", text):
        if star and any(each.startswith(f"{name}_") for each in known):
            continue
        if name not in known and not name.startswith(families):
            unknown.add(name)
    assert not unknown


def made(page: Page) -> Iterator[str]:
    """Targets of make that a page names."""
    for line in page.code:
        for words in re.findall(r"(?:^|[\s`(])make((?: +[A-Z_]+=\S+)* +[a-z][a-z-]*)", line):
            yield words.split()[-1]


def commands(page: Page) -> Iterator[list[str]]:
    """The words after each `atrium` of a page, up to where the shell goes on."""
    for line in page.code:
        for words in re.findall(r"(?:^|[\s/])atrium(?:-(models))? +([^#|;&>]+)", line):
            mounted, rest = words
            yield [*([mounted] if mounted else []), *rest.split()]


@functools.cache
def atrium() -> TyperCommand | TyperGroup:
    """The command line's tree."""
    return typer.main.get_command(app)


def problem(words: list[str]) -> str:
    """What a command line of `atrium` names that is not there; empty if all of it is."""
    command = atrium()
    for word in words:
        if not isinstance(command, TyperGroup) or not re.fullmatch(r"[a-z][a-z-]*", word):
            break
        inner = command.commands.get(word)
        if inner is None and not isinstance(command, DefaultsToShow):
            return f"no command {word}"
        command = inner or command.commands["show"]
        if inner is None:
            break
    options = {name for each in command.params for name in [*each.opts, *each.secondary_opts]}
    asked = {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}
    return ", ".join(sorted(asked - options - {"--help"}))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_exists(page: Page) -> None:
    assert set(made(page)) <= TARGETS
    assert not [(" ".join(words), told) for words in commands(page) if (told := problem(words))]


def test_a_command_that_is_not_there_is_found() -> None:
    assert problem(["tenant", "creat", "acme"]) == "no command creat"
    assert problem(["key", "create", "acme", "--colour", "red"]) == "--colour"
    assert not problem(["usage", "acme", "--csv"])
    assert not problem(["models", "licence", "accept", "xtts-v2"])
