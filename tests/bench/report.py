"""Medians, CPU clocks and tables of the benchmarks."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from tests.bench.load import LoadPlan, LoadResult

ROUNDS = 5
"""Runs per figure; the median is shown."""

HERE = Path(__file__).parent
console = Console()


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time, user and system, that a process has used so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def send(plan: LoadPlan) -> LoadResult:
    """Runs a load in a process of its own; raises if any request failed."""
    done = subprocess.run(
        [sys.executable, str(HERE / "load.py"), json.dumps(asdict(plan))],
        capture_output=True,
        text=True,
        check=True,
        timeout=3600,
    )
    result = LoadResult(**json.loads(done.stdout))
    if result.errors:
        raise RuntimeError(f"{result.errors} requests failed: {result.error_sample}")
    return result


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: Sequence[float], pattern: str = "{:,.0f}") -> str:
    """``median (min - max)``."""
    shown = [pattern.format(value) for value in (median(values), min(values), max(values))]
    return f"{shown[0]} ({shown[1]} - {shown[2]})"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints one result."""
    drawn = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        drawn.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        drawn.add_row(*row)
    console.print(drawn)


class Worker:
    """A baseline process that answers one JSON line with another."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, question: dict[str, object]) -> dict[str, Any]:
        """Sends one line and waits for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Waits for one line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the baseline process ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def worker(
    *arguments: str, environment: dict[str, str], script: str = "alone.py"
) -> Iterator[Worker]:
    """Starts a script of this folder and waits until its model is loaded."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        started = Worker(process)
        started.answer()
        yield started
    finally:
        process.kill()
        process.wait()
