"""Reads a Dockerfile as far as ours go: stages, and what each instruction says.

`check.sh` takes an image's steps from it, and `tests/deploy/test_images.py` its promises, so
that neither repeats what the Dockerfile says.
"""

import json
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FLAG = re.compile(r"--[a-z-]+(=\S+)?")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its name, its ``--flags`` and the rest of its line."""

    name: str
    flags: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: its base as written, its name, and its instructions in order."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        """Returns the instructions of one name."""
        return [each for each in self.instructions if each.name == name]

    def last(self, name: str) -> str:
        """Returns the text of the last instruction of one name; empty if there is none."""
        found = self.all(name)
        return found[-1].text if found else ""

    def environment(self) -> dict[str, str]:
        """Returns what ENV sets; ``$PATH`` is a base image's."""
        pairs = [word for each in self.all("ENV") for word in shlex.split(each.text)]
        split = (pair.partition("=") for pair in pairs)
        return {name: value.replace("$PATH", _DEFAULT_PATH) for name, _, value in split}

    def entrypoint(self) -> list[str]:
        """Returns ENTRYPOINT's words, which are written as JSON."""
        words: list[str] = json.loads(self.last("ENTRYPOINT"))
        return words

    def healthcheck(self) -> list[str]:
        """Returns the words of HEALTHCHECK's command; none for ``NONE``."""
        command = self.last("HEALTHCHECK").partition("CMD")[2]
        words: list[str] = json.loads(command) if command else []
        return words


def read(path: Path) -> tuple[dict[str, str], dict[str, Stage]]:
    """Returns the arguments before the first stage, and the stages by name."""
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for line in _logical_lines(path.read_text()):
        name, _, text = line.partition(" ")
        flags, text = _split_flags(text)
        if name == "FROM":
            base, _, label = text.partition(" AS ")
            stage = stages[label] = Stage(base, label)
        elif stage is None:
            argument, _, value = text.partition("=")
            arguments[argument] = value
        else:
            stage.instructions.append(Instruction(name, flags, text))
    return arguments, stages


def _logical_lines(text: str) -> list[str]:
    """Joins continued lines; leaves comments and empty lines out."""
    kept = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(kept))
    return [line.strip() for line in joined.splitlines() if line.strip()]


def _split_flags(text: str) -> tuple[tuple[str, ...], str]:
    words = text.split()
    count = 0
    while count < len(words) and _FLAG.fullmatch(words[count]):
        count += 1
    rest = text
    for _ in range(count):
        rest = rest.strip().partition(" ")[2]
    return tuple(words[:count]), " ".join(rest.split())


def main(path: str, stage_name: str, what: str) -> None:
    """Prints one thing of a stage, a line each: ``steps``, ``env``, ``entrypoint``, ``probe``."""
    stage = read(Path(path))[1][stage_name]
    lines = {
        "steps": [
            f"{each.name} {each.text}"
            for each in stage.instructions
            if each.name in ("COPY", "RUN") and not any("--from" in flag for flag in each.flags)
        ],
        "env": [f"{name}={value}" for name, value in stage.environment().items()],
        "entrypoint": stage.entrypoint() if stage.last("ENTRYPOINT") else [],
        "probe": stage.healthcheck(),
    }[what]
    sys.stdout.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
