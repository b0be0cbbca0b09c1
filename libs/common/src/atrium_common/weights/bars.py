"""Progress bars for a person at a terminal. The weights CLI draws them where `rich` is."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn
from rich.progress import Progress as Bars

from atrium_common.catalogue import Entry
from atrium_common.weights.progress import Progress, Report


@contextmanager
def bars(entries: Sequence[Entry]) -> Iterator[Report]:
    """Draws one bar per entry while the block runs."""
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[stage]}"),
    )
    with Bars(*columns, console=Console(stderr=True)) as display:
        tasks = {entry.id: display.add_task(entry.id, total=None, stage="") for entry in entries}

        def report(progress: Progress) -> None:
            task = tasks[progress.model]
            if progress.stage == "ready":
                display.update(task, total=1, completed=1, stage="ready")
            else:
                display.update(
                    task,
                    total=progress.total or None,
                    completed=progress.done,
                    stage=progress.stage,
                )

        yield report
