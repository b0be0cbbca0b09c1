"""What the compose files say, as `docker compose config` reads them; each asked for once."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BOX = "docker-compose.ai-services.yml"
LAPTOP = "docker-compose.cpu.yml"
EXAMPLE = ROOT / ".env.example"
PRESETS = sorted((ROOT / "deploy/presets").glob("*.env"))

Config = dict[str, Any]  # JSON, as deep as compose's own schema


@dataclass(frozen=True)
class Resolved:
    """What one call gave.

    Attributes:
        config: The resolved model.
        warnings: What it wrote beside that; nothing, if all is well.
    """

    config: Config
    warnings: str


def variables(file: Path) -> dict[str, str]:
    """Reads an env file; of a name that is there twice the last counts."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def resolve(
    *files: str, profiles: str | None = None, env_files: Sequence[Path] = (EXAMPLE,)
) -> Resolved:
    """Resolves compose files.

    Args:
        files: Below the repository's root, the base first; none is the box.
        profiles: With commas; ``None`` takes those of `env_files`.
        env_files: Later ones win over earlier ones.
    """
    return _resolve(files or (BOX,), profiles, tuple(env_files) or (Path(os.devnull),))


@cache
def _resolve(files: tuple[str, ...], profiles: str | None, env_files: tuple[Path, ...]) -> Resolved:
    program = Path(sys.executable).with_name("docker-compose")
    command = [str(program), "--project-directory", str(ROOT)]
    command += [part for file in env_files for part in ("--env-file", str(file))]
    command += [part for file in files for part in ("--file", str(ROOT / file))]
    # Nothing of the person who runs the tests counts, neither variables nor Docker's settings.
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    if profiles is not None:
        environment["COMPOSE_PROFILES"] = profiles
    done = subprocess.run(
        [*command, "config", "--format", "json", "--no-env-resolution"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Resolved(json.loads(done.stdout), done.stderr)
