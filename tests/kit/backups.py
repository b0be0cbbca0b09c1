"""Running `deploy/backup.sh` and `deploy/restore.sh`, for the tests that lose things."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.kit.compose import ROOT

DAMAGED, HAS_DATA = 4, 5
"""Exit statuses of `restore.sh`."""


def run(script: str, variables: Mapping[str, str], *arguments: str | Path) -> tuple[int, str]:
    """Runs one of the two; returns its exit status and what it said."""
    kept = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    done = subprocess.run(
        [ROOT / "deploy" / script, *arguments],
        cwd=ROOT,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
