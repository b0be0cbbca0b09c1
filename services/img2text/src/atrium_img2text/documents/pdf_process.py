"""The process that draws a PDF, seen from the service: starting it, asking it, ending it.

`pdf.py` calls this in a thread, because everything here waits for that process. What it
answers is believed no further than it can be checked: the document may have taken it over.
"""

import contextlib
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from atrium_common.images import Pixels

_SCRIPT = Path(__file__).with_name("pdf_worker.py")
_ANSWER_BYTES = 1024
"""Most bytes of an answer's line."""
_CHANNELS = 3


class ProcessLost(Exception):
    """The process ended, or answers what it should not."""


class ProcessRefused(Exception):
    """The process does not draw this; its text is the reason of the protocol."""


@dataclass(frozen=True, slots=True, eq=False)
class DrawnPage:
    """A drawn page: shape (height, width, 3), and the pixels per inch it was drawn at."""

    pixels: Pixels
    resolution: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingBounds:
    """What a drawn page has at most: pixels, pixels to a side, seconds of processor time."""

    max_pixels: int
    max_side: int
    seconds: float


class PdfProcess:
    """One process and the one document it draws. `kill` may be called from any thread."""

    def __init__(self, bounds: DrawingBounds, *, memory_mib: int) -> None:
        """Starts nothing yet."""
        self._bounds = bounds
        self._memory_mib = memory_mib
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Starts the process and waits until it is ready.

        Raises:
            RuntimeError: It can't run here: too little memory, or pypdfium2 is missing.
        """
        # Isolated from environment, working directory and the user's own packages.
        command = [sys.executable, "-I", str(_SCRIPT), str(self._memory_mib)]
        self._process = subprocess.Popen(  # noqa: S603 - no part of it comes from a caller
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,  # Ctrl-C is for the service, which then ends it
        )
        try:
            self._hear()
        except ProcessLost as err:
            raise RuntimeError("the process that draws PDFs does not start") from err

    def open(self, path: Path) -> int:
        """Opens a document and returns how many pages it has, 1 or more.

        Raises:
            ProcessRefused: It is encrypted or damaged.
            ProcessLost: The process ended over it.
        """
        answer = self._ask({"path": str(path.resolve()), "seconds": self._bounds.seconds})
        return _number(answer, "pages", most=2**31)

    def draw(self, page: int, resolution: int) -> DrawnPage:
        """Draws a page.

        Args:
            page: From 0.
            resolution: Pixels per inch; a page that is too large gets fewer.

        Raises:
            ProcessRefused: It is damaged, or far too large.
            ProcessLost: The process ended over it.
        """
        bounds = self._bounds
        answer = self._ask(
            {
                "page": page,
                "resolution": resolution,
                "max_pixels": bounds.max_pixels,
                "max_side": bounds.max_side,
                "seconds": bounds.seconds,
            }
        )
        width = _number(answer, "width", most=bounds.max_side)
        height = _number(answer, "height", most=bounds.max_pixels // width)
        pixels = np.empty((height, width, _CHANNELS), np.uint8)
        _fill(self._pipes()[1], pixels.data.cast("B"))
        return DrawnPage(pixels, _number(answer, "resolution", most=resolution))

    def kill(self) -> None:
        """Ends the process at once, whatever it does; who waits for it gets `ProcessLost`."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Ends the process and lets go of its pipes; when nobody waits for it any more."""
        if self._process is not None:
            self._process.kill()
            for pipe in self._pipes():
                with contextlib.suppress(BrokenPipeError):  # what it ended without hearing
                    pipe.close()
            self._process.wait()

    def _pipes(self) -> tuple[BinaryIO, BinaryIO]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise ProcessLost("it was not started")
        return process.stdin, process.stdout  # type: ignore[return-value]

    def _ask(self, request: Mapping[str, object]) -> Mapping[str, object]:
        requests, _ = self._pipes()
        try:
            requests.write(json.dumps(request).encode() + b"\n")
            requests.flush()
        except OSError as err:
            raise ProcessLost("it does not listen") from err
        answer = self._hear()
        if "refused" in answer:
            raise ProcessRefused(str(answer["refused"]))
        return answer

    def _hear(self) -> Mapping[str, object]:
        _, answers = self._pipes()
        line = answers.readline(_ANSWER_BYTES)
        if not line.endswith(b"\n"):
            raise ProcessLost("it ended")
        try:
            answer = json.loads(line)
        except ValueError as err:
            raise ProcessLost("it does not speak the protocol") from err
        if not isinstance(answer, dict):
            raise ProcessLost("it does not speak the protocol")
        return answer


def _number(answer: Mapping[str, object], name: str, *, most: float = math.inf) -> int:
    value = answer.get(name)
    if not isinstance(value, int) or not 1 <= value <= most:
        raise ProcessLost("it does not speak the protocol")
    return value


def _fill(source: BinaryIO, target: memoryview) -> None:
    """Reads as many bytes as `target` has."""
    while target:
        read = source.readinto(target)  # type: ignore[attr-defined]
        if not read:
            raise ProcessLost("it ended within a page")
        target = target[read:]
