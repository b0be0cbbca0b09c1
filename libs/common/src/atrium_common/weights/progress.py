"""How a fetch tells what it is doing; the CLI draws it, tests record it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a fetch.

    Attributes:
        model: Catalogue id.
        stage: ``"wait"`` while another process fetches the same, ``"fetch"`` while bytes
            arrive, ``"check"`` while they are unpacked and
            their digests are computed, ``"ready"`` once, at the end.
        done: Bytes of the stage so far.
        total: Bytes of the stage, 0 if unknown.
    """

    model: str
    stage: Literal["wait", "fetch", "check", "ready"]
    done: int = 0
    total: int = 0


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Reports nothing."""


class Meter:
    """Adds up the bytes of one entry and reports them. Thread-safe."""

    def __init__(self, model: str, total: int, report: Report) -> None:
        """Takes the catalogue id, the bytes to come (0 if unknown) and whom to tell."""
        self._model = model
        self._total = total
        self._report = report
        self._fetched = 0
        self._checked = 0
        self._lock = threading.Lock()

    def expect(self, total: int) -> None:
        """Says how many bytes there are, where the catalogue did not."""
        self._total = total

    def waiting(self) -> None:
        """Another process is at it."""
        self._report(Progress(self._model, "wait", 0, self._total))

    def fetched(self, count: int) -> None:
        """More bytes have arrived; packages may be larger or smaller than their files.

        A negative count takes back what had to be thrown away.
        """
        if not count:
            return
        with self._lock:
            self._fetched = min(self._fetched + count, self._total or self._fetched + count)
            self._report(Progress(self._model, "fetch", self._fetched, self._total))

    def checked(self, count: int) -> None:
        """More bytes were read back."""
        with self._lock:
            self._checked += count
            self._report(Progress(self._model, "check", self._checked, self._total))
