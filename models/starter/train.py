"""Trains a starter model from nothing: `python models/starter/train.py pictures` (or `captions`).

The work is in `starter_trainer/`: read its `pictures.py` and `captions.py` first. A model of
another kind is a recipe of its own, with a command of its own here.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

from starter_trainer import captions, pictures
from starter_trainer.drawing import EngineDrawer
from starter_trainer.errors import TrainingError
from starter_trainer.folder import catalogue_lines

_HERE = Path(".atrium/training")
_PICTURES = Path(__file__).parent / "sdxl-shapes-128"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Trains a starter model from rendered shapes.")
    models = parser.add_subparsers(dest="model", required=True)
    drawing = models.add_parser("pictures", help="SDXL's code at toy width, 128 px")
    _shared_options(drawing, out="sdxl-shapes-128", work="pictures")
    describing = models.add_parser("captions", help="BLIP-2's code at toy width, 64 px")
    _shared_options(describing, out="blip2-shapes-64", work="captions")
    describing.add_argument(
        "--drawn-by", type=Path, default=_PICTURES, help="picture model, to learn from its drawings"
    )
    return parser.parse_args()


def _shared_options(parser: argparse.ArgumentParser, *, out: str, work: str) -> None:
    parser.add_argument("--out", type=Path, default=_HERE / out)
    parser.add_argument(
        "--work", type=Path, default=_HERE / work, help="checkpoints, to go on from"
    )
    parser.add_argument(
        "--minutes", type=float, help="about how long, instead of a fixed number of steps"
    )
    parser.add_argument("--threads", type=int, help="of torch; all cores without it")


def main() -> int:
    """Trains; 0 when a model was saved, 1 when it could not be, 130 after Ctrl-C."""
    options = _options()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        _train(options)
    except TrainingError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from {options.work}", file=sys.stderr)
        return 130
    print("\nFor the catalogue (models/starter.yaml):")
    print("\n".join(catalogue_lines(options.out)))
    print(f"\nNext: python models/starter/evaluate.py {options.model} {options.out}")
    return 0


def _train(options: argparse.Namespace) -> None:
    if options.model == "pictures":
        drawn = pictures.Recipe(minutes=options.minutes)
        pictures.train(drawn, out=options.out, work=options.work, say=_say)
    else:
        captions.train(
            captions.Recipe(minutes=options.minutes),
            studio=partial(EngineDrawer, options.drawn_by),
            out=options.out,
            work=options.work,
            say=_say,
        )


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
