"""Judges a starter model: `python models/starter/evaluate.py pictures [FOLDER]`.

Prints one row for each promise; no person looks on. The figures in README.md come from here.
"""

import argparse
import sys
from pathlib import Path

import torch

from trainer import measures
from trainer.drawing import PipelineDrawer
from trainer.errors import TrainingError

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
        drawer = PipelineDrawer(
            options.folder, steps=options.steps, guidance_scale=options.guidance
        )
    except TrainingError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.folder}, {options.steps} steps, guidance {options.guidance}", flush=True)
    for measure in (
        lambda: measures.plain_prompts(drawer),
        lambda: measures.random_prompts(drawer, pictures=options.random),
        lambda: measures.recolouring(drawer, pictures=options.edits),
        lambda: measures.reshaping(drawer, pictures=options.edits),
    ):
        result = measure()
        print(result.line, flush=True)
        if options.sheets is not None:
            options.sheets.mkdir(parents=True, exist_ok=True)
            name = "-".join(result.name.replace(",", "").split())
            measures.sheet(result.sheet).save(options.sheets / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
