"""Writes the dashboards that Grafana loads: ``python deploy/grafana/make.py [FOLDER]``.

Run by whoever changes `boards`; the JSON is committed, and a test holds both together.
"""

import json
import sys
from pathlib import Path

from boards import DASHBOARDS
from boards.rendering import render

FOLDER = Path(__file__).parent / "dashboards"


def write(folder: Path) -> None:
    """Writes each dashboard to `folder`, by its uid."""
    for dashboard in DASHBOARDS:
        text = json.dumps(render(dashboard), indent=2, ensure_ascii=False)
        (folder / f"{dashboard.uid}.json").write_text(text + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
