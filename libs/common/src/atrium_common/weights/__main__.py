"""`python -m atrium_common.weights ensure`: fetches the models and adapters of a catalogue.

`make run` calls it before it starts the services: it needs none of the extras that
`atrium models` needs. Every failure is one line, and the exit status is then 1.
"""

import argparse
import sys
from pathlib import Path

from atrium_common.catalogue import Catalogue
from atrium_common.errors import AtriumError
from atrium_common.weights.reporting import ensure_all, say
from atrium_common.weights.store import WeightStore

_INTERRUPTED = 130
"""As shells say of a program that Ctrl-C ended."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        catalogue = Catalogue.load(options.catalogue)
    except AtriumError as err:
        say(f"error: {err.message}")
        return 1
    store = WeightStore(options.models_dir)
    try:
        return 0 if ensure_all(store, catalogue.with_files(options.service or ())) else 1
    except KeyboardInterrupt:  # it is told already
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m atrium_common.weights")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    ensure = commands.add_parser("ensure", help="fetch the models that are missing, checked")
    ensure.add_argument("--catalogue", type=Path, required=True, help="catalogue file (YAML)")
    ensure.add_argument("--models-dir", type=Path, required=True, help="where models are kept")
    ensure.add_argument(
        "--service", action="append", help="only this service's models, e.g. llm; repeat"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
