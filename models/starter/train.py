"""Trains a starter model from nothing: `python models/starter/train.py pictures`.

The work is in `starter_trainer/`: read its `pictures.py` first. A model of another kind is a
recipe of its own, with a command of its own here.
"""

import argparse
import sys
from pathlib import Path

import torch

from starter_trainer import pictures
from starter_trainer.errors import TrainingError
from starter_trainer.folder import catalogue_lines

_HERE = Path(".atrium/training")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Trains a starter model from rendered shapes.")
    models = parser.add_subparsers(dest="model", required=True)
    drawing = models.add_parser("pictures", help="SDXL's code at toy width, 128 px")
    drawing.add_argument("--out", type=Path, default=_HERE / "sdxl-shapes-128")
    drawing.add_argument(
        "--work", type=Path, default=_HERE / "pictures", help="checkpoints, to go on from"
    )
    drawing.add_argument(
        "--minutes", type=float, help="about how long, instead of a fixed number of steps"
    )
    drawing.add_argument("--threads", type=int, help="of torch; all cores without it")
    return parser.parse_args()


def main() -> int:
    """Trains; 0 when a model was saved, 1 when it could not be, 130 after Ctrl-C."""
    options = _options()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    recipe = pictures.Recipe(minutes=options.minutes)
    try:
        pictures.train(recipe, out=options.out, work=options.work, say=_say)
    except TrainingError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from {options.work}", file=sys.stderr)
        return 130
    print("\nFor the catalogue (models/starter.yaml):")
    print("\n".join(catalogue_lines(options.out)))
    print(f"\nNext: python models/starter/evaluate.py pictures {options.out}")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
