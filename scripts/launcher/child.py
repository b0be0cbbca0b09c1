"""One run of one program: started so that it can't outlive the launcher, its output line by line.

`keeper.py` makes a new one for every run.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from launcher.errors import LaunchError
from launcher.programs import Program

_PR_SET_PDEATHSIG = 1
_LAST_OUTPUT_SECONDS = 1.0
_MAX_LINE_BYTES = 64 * 1024
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Child:
    """A running process. Make it with `spawn`."""

    def __init__(self, process: asyncio.subprocess.Process, output: asyncio.Task[None]) -> None:
        self._process = process
        self._output = output
        self.last_line = ""
        """What it wrote last: the best hint at why it died."""

    @classmethod
    async def spawn(cls, program: Program, *, log: Path, on_line: Callable[[str], None]) -> "Child":
        """Starts `program` in a process group of its own, so that Ctrl-C reaches the launcher only.

        Args:
            program: What to start.
            log: File that its output is added to.
            on_line: Called with each line of its output.

        Raises:
            LaunchError: It can't be started at all.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *program.command,
                env=program.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        except OSError as err:
            raise LaunchError(f"{program.name} can't be started: {err}") from err
        assert process.stdout is not None  # noqa: S101  asked for above

        def keep(line: str) -> None:
            child.last_line = line or child.last_line
            on_line(line)

        output = asyncio.create_task(_copy(process.stdout, log, keep))
        child = cls(process, output)
        return child

    @property
    def pid(self) -> int:
        """Process id, and id of its process group."""
        return self._process.pid

    async def wait(self) -> int:
        """Waits for its end and for its last output; returns the exit status (-N: signal N)."""
        status = await self._process.wait()
        # A grandchild may hold the pipe open; it does not hold us.
        await asyncio.wait({self._output}, timeout=_LAST_OUTPUT_SECONDS)
        self._output.cancel()
        await asyncio.gather(self._output, return_exceptions=True)
        return status

    def terminate(self) -> None:
        """Asks it to finish its work and stop."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Ends it and everything that it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def describe(status: int) -> str:
    """Says in words how a process ended."""
    if status >= 0:
        return f"stopped with exit status {status}"
    return f"was ended by {signal.Signals(-status).name}"


def die_with_parent() -> None:
    """Runs in the new process: the kernel ends it when the launcher is gone, killed or not.

    The signal is SIGTERM, so that running requests are still settled.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _copy(stream: asyncio.StreamReader, log: Path, on_line: Callable[[str], None]) -> None:
    with log.open("ab", buffering=0) as file:
        async for line in _lines(stream):
            with contextlib.suppress(OSError):  # a full disk must not block the process
                file.write(line + b"\n")
            on_line(line.decode(errors="replace").rstrip())


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yields lines without their ends; one that is too long comes in pieces."""
    rest = b""
    while chunk := await stream.read(_MAX_LINE_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
        if len(rest) >= _MAX_LINE_BYTES:
            yield rest
            rest = b""
    if rest:
        yield rest
