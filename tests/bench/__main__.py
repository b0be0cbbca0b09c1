"""Runs the benchmarks: all of them, or those named: ``python -m tests.bench gateway``."""

import sys
import tempfile
from pathlib import Path

from tests.bench import gateway, models, pictures, seeing, speech

SECTIONS = {
    "gateway": gateway.run,
    "models": models.run,
    "speech": speech.run,
    "pictures": pictures.run,
    "seeing": seeing.run,
}

if __name__ == "__main__":
    chosen = sys.argv[1:] or list(SECTIONS)
    if unknown := [name for name in chosen if name not in SECTIONS]:
        sys.exit(f"no such benchmark: {', '.join(unknown)} (there are {', '.join(SECTIONS)})")
    for name in chosen:
        with tempfile.TemporaryDirectory(prefix="atrium-bench-") as folder:
            SECTIONS[name](Path(folder) / "state")
