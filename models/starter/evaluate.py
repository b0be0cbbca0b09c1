"""Judges a starter model: `python models/starter/evaluate.py pictures [FOLDER]` (or `captions`).

Prints one row for each promise; no person looks on. The figures in README.md come from here.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from starter_trainer import caption_measures, measures
from starter_trainer.describing import Blip2Describer
from starter_trainer.drawing import EngineDrawer
from starter_trainer.errors import TrainingError
from starter_trainer.measures import Result

_HERE = Path(__file__).parent
_PICTURES, _CAPTIONS = _HERE / "sdxl-shapes-128", _HERE / "blip2-shapes-64"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Judges a starter model.")
    models = parser.add_subparsers(dest="model", required=True)
    drawing = models.add_parser("pictures", help="what the pixel judge says of drawn pictures")
    drawing.add_argument("folder", nargs="?", type=Path, default=_PICTURES)
    drawing.add_argument("--random", type=int, default=192, help="pictures of random prompts")
    drawing.add_argument("--edits", type=int, default=32, help="edits of each kind")
    describing = models.add_parser("captions", help="what a captioner says of known pictures")
    describing.add_argument("folder", nargs="?", type=Path, default=_CAPTIONS)
    describing.add_argument("--random", type=int, default=400, help="rendered random scenes")
    describing.add_argument("--seeds", type=int, default=3, help="of each plain prompt")
    describing.add_argument(
        "--drawn-by", type=Path, default=_PICTURES, help="picture model, to describe its drawings"
    )
    for command in (drawing, describing):
        command.add_argument("--steps", type=int, default=12)
        command.add_argument("--guidance", type=float, default=3.0)
        command.add_argument("--threads", type=int, default=1)
        command.add_argument("--sheets", type=Path, help="folder for the pictures")
    return parser.parse_args()


def main() -> int:
    """Judges; 0 when it did, whatever the figures are."""
    options = _options()
    torch.set_num_threads(options.threads)
    results = _of_pictures if options.model == "pictures" else _of_captions
    try:
        print(f"{options.folder}; drawn in {options.steps} steps, guidance {options.guidance}")
        for result in results(options):
            _show(result, options.sheets)
    except TrainingError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _of_pictures(options: argparse.Namespace) -> Iterator[Result]:
    with _drawer(options.folder, options) as drawer:
        yield measures.plain_prompts(drawer)
        yield measures.random_prompts(drawer, pictures=options.random)
        yield measures.recolouring(drawer, pictures=options.edits)
        yield measures.reshaping(drawer, pictures=options.edits)


def _of_captions(options: argparse.Namespace) -> Iterator[Result]:
    describer = Blip2Describer(options.folder)
    yield caption_measures.plain_rendered(describer, seeds=options.seeds)
    yield caption_measures.random_rendered(describer, pictures=options.random)
    yield caption_measures.answers(describer, pictures=options.random)
    with _drawer(options.drawn_by, options) as drawer:
        yield caption_measures.plain_drawn(describer, drawer, seeds=options.seeds)


def _drawer(folder: Path, options: argparse.Namespace) -> EngineDrawer:
    return EngineDrawer(folder, steps=options.steps, guidance_scale=options.guidance)


def _show(result: Result, sheets: Path | None) -> None:
    print(result.line, flush=True)
    if sheets is not None:
        sheets.mkdir(parents=True, exist_ok=True)
        name = "-".join(result.name.replace(",", "").split())
        measures.sheet(result.sheet).save(sheets / f"{name}.png")


if __name__ == "__main__":
    sys.exit(main())
