"""`python -m atrium_common.weights ensure`: fetches the models and adapters of a catalogue.

`make run` calls it before it starts the services; on a terminal it draws progress, in a
log it prints lines. Every failure is one line, and the exit status is then 1.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atrium_common.catalogue import Catalogue, Entry
from atrium_common.errors import AtriumError
from atrium_common.weights.progress import Progress, Report
from atrium_common.weights.store import WeightStore

_LINE_SECONDS = 2.0
"""Least time between two progress lines of a log."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        catalogue = Catalogue.load(options.catalogue)
    except AtriumError as err:
        _say(f"error: {err.message}")
        return 1
    store = WeightStore(options.models_dir)
    entries = catalogue.with_files(options.service or ())
    with _reporter(entries) as report:
        failures = [line for entry in entries if (line := _ensure(store, entry, report))]
    for line in failures:
        _say(f"error: {line}")
    return 1 if failures else 0


def _ensure(store: WeightStore, entry: Entry, report: Report) -> str | None:
    """Fetches one entry; returns what went wrong, in one line."""
    try:
        store.ensure(entry, report)
    except AtriumError as err:
        message = " ".join(err.message.split())
        return message if message.startswith(entry.id) else f"{entry.id}: {message}"
    return None


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


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


@contextmanager
def _reporter(entries: list[Entry]) -> Iterator[Report]:
    """Gives bars on a terminal where `rich` is installed, else lines."""
    if sys.stderr.isatty():
        try:
            from atrium_common.weights.bars import bars
        except ImportError:
            pass
        else:
            with bars(entries) as report:
                yield report
            return
    yield _lines()


def _lines() -> Report:
    """Prints a line per stage, and every few seconds while bytes move."""
    last: dict[str, tuple[str, float]] = {}

    def report(progress: Progress) -> None:
        stage, printed = last.get(progress.model, ("", 0.0))
        now = time.monotonic()
        if progress.stage == stage and now - printed < _LINE_SECONDS:
            return
        last[progress.model] = (progress.stage, now)
        amount = f" {progress.done >> 20} of {progress.total >> 20} MiB" if progress.total else ""
        _say(f"{progress.model}: {progress.stage}{amount}")

    return report


if __name__ == "__main__":
    sys.exit(main())
