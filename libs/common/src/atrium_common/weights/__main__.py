"""`python -m atrium_common.weights ensure`: fetches the models and adapters of a catalogue.

`make run` calls it before it starts the services: it needs none of the extras that
`atrium models` needs. Every failure is one line, and the exit status is then 1.
"""

import argparse
import sys
from pathlib import Path

from atrium_common.catalogue import Catalogue, Entry
from atrium_common.errors import AtriumError
from atrium_common.weights.progress import Report
from atrium_common.weights.reporting import reporter, say
from atrium_common.weights.store import WeightStore


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        catalogue = Catalogue.load(options.catalogue)
    except AtriumError as err:
        say(f"error: {err.message}")
        return 1
    store = WeightStore(options.models_dir)
    entries = catalogue.with_files(options.service or ())
    with reporter(entries) as report:
        failures = [line for entry in entries if (line := _ensure(store, entry, report))]
    for line in failures:
        say(f"error: {line}")
    return 1 if failures else 0


def _ensure(store: WeightStore, entry: Entry, report: Report) -> str | None:
    """Fetches one entry; returns what went wrong, in one line."""
    try:
        store.ensure(entry, report)
    except AtriumError as err:
        message = " ".join(err.message.split())
        return message if message.startswith(entry.id) else f"{entry.id}: {message}"
    return None


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
