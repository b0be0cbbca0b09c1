"""Judges a starter model: `python models/starter/evaluate.py pictures [FOLDER]`.

Prints one row for each promise; no person looks on. The figures in README.md come from here.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from starter_trainer import measures
from starter_trainer.drawing import EngineDrawer
from starter_trainer.errors import TrainingError
from starter_trainer.measures import Result

_PUBLISHED = Path(__file__).parent / "sdxl-shapes-128"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Judges a starter model.")
    models = parser.add_subparsers(dest="model", required=True)
    drawing = models.add_parser("pictures", help="what the pixel judge says of drawn pictures")
    drawing.add_argument("folder", nargs="?", type=Path, default=_PUBLISHED)
    drawing.add_argument("--steps", type=int, default=12)
    drawing.add_argument("--guidance", type=float, default=3.0)
    drawing.add_argument("--random", type=int, default=192, help="pictures of random prompts")
    drawing.add_argument("--edits", type=int, default=32, help="edits of each kind")
    drawing.add_argument("--threads", type=int, default=1)
    drawing.add_argument("--sheets", type=Path, help="folder for the drawn pictures")
    return parser.parse_args()


def main() -> int:
    """Draws and judges; 0 when it did, whatever the figures are."""
    options = _options()
    torch.set_num_threads(options.threads)
    try:
        with EngineDrawer(
            options.folder, steps=options.steps, guidance_scale=options.guidance
        ) as drawer:
            print(f"{options.folder}, {options.steps} steps, guidance {options.guidance}")
            for result in _results(drawer, options):
                _show(result, options.sheets)
    except TrainingError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _results(drawer: EngineDrawer, options: argparse.Namespace) -> Iterator[Result]:
    yield measures.plain_prompts(drawer)
    yield measures.random_prompts(drawer, pictures=options.random)
    yield measures.recolouring(drawer, pictures=options.edits)
    yield measures.reshaping(drawer, pictures=options.edits)


def _show(result: Result, sheets: Path | None) -> None:
    print(result.line, flush=True)
    if sheets is not None:
        sheets.mkdir(parents=True, exist_ok=True)
        name = "-".join(result.name.replace(",", "").split())
        measures.sheet(result.sheet).save(sheets / f"{name}.png")


if __name__ == "__main__":
    sys.exit(main())
