"""How a command fetches and tells of it: bars where a terminal has `rich`, else lines in a log."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from atrium_common.catalogue import Entry
from atrium_common.errors import AtriumError
from atrium_common.weights.progress import Progress, Report
from atrium_common.weights.store import WeightStore

_LINE_SECONDS = 2.0
"""Least time between two progress lines of a log."""


def say(line: str) -> None:
    """Writes a line where progress and errors go."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def ensure_all(store: WeightStore, entries: Sequence[Entry]) -> bool:
    """Fetches what is missing, one entry after the other; says what went wrong, a line each.

    Returns:
        True if all are here.
    """
    try:
        failures = _failures(store, entries)
    except KeyboardInterrupt:
        say("stopped; what has arrived from the hub is kept: pull again to go on from there")
        raise
    for line in failures:
        say(f"error: {line}")
    return not failures


def _failures(store: WeightStore, entries: Sequence[Entry]) -> list[str]:
    failures: list[str] = []
    with reporter(entries) as report:
        for entry in entries:
            try:
                store.ensure(entry, report)
            except AtriumError as err:
                message = " ".join(err.message.split())
                named = message.startswith(entry.id)
                failures.append(message if named else f"{entry.id}: {message}")
    return failures


@contextmanager
def reporter(entries: Sequence[Entry]) -> Iterator[Report]:
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
        say(f"{progress.model}: {progress.stage}{amount}")

    return report
