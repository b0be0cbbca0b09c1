"""Keeps one program running: starts it, sees it become ready, starts it again when it dies.

`suite.py` holds one keeper per program.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from launcher.child import Child, describe
from launcher.display import Report
from launcher.errors import LaunchError
from launcher.probe import until_ready
from launcher.programs import Program

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A run that lasted this long was no crash at start: the pauses begin anew."""


class Keeper:
    """One program over all of its runs."""

    def __init__(
        self,
        program: Program,
        *,
        logs: Path,
        report: Report,
        ready_probe: Callable[[str], Awaitable[None]] = until_ready,
        clock: Callable[[], float] = time.monotonic,
        first_pause: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self.program = program
        self.ready = asyncio.Event()
        """Set when it was ready for the first time."""
        self._log = logs / f"{program.name}.log"
        self._report = report
        self._ready_probe = ready_probe
        self._clock = clock
        self._first_pause = first_pause
        self._child: Child | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Runs the program until `stop` is called.

        Raises:
            LaunchError: It died before it was ever ready, so it would only die again.
        """
        pause = self._first_pause
        while not self._stopping.is_set():
            started = self._clock()
            status, last_line = await self._run_once()
            if self._stopping.is_set():
                return
            if not self.ready.is_set():
                raise LaunchError(
                    f"{self.program.name} {describe(status)} before it was ready:"
                    f" {last_line or 'it wrote nothing'} (see {self._log})"
                )
            if self._clock() - started > STEADY_SECONDS:
                pause = self._first_pause
            self._note(f"{describe(status)}; starting it again in {pause:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def stop(self, *, seconds: float) -> None:
        """Lets it finish its work; what still runs after `seconds` is killed."""
        self._stopping.set()
        child = self._child
        if child is None:
            return
        child.terminate()
        try:
            await asyncio.wait_for(asyncio.shield(child.wait()), seconds)
        except TimeoutError:
            self._note(f"did not stop within {seconds:g} s; killed")
            child.kill()

    def kill(self) -> None:
        """Ends it at once."""
        self._stopping.set()
        if self._child is not None:
            self._child.kill()

    async def _run_once(self) -> tuple[int, str]:
        """One run; returns its exit status and the last line that it wrote."""
        child = await Child.spawn(self.program, log=self._log, on_line=self._write)
        self._child = child
        if self._stopping.is_set():  # asked while it was being started
            child.terminate()
        probing = asyncio.create_task(self._see_ready())
        try:
            status = await child.wait()
        except asyncio.CancelledError:
            child.kill()
            raise
        finally:
            self._child = None
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
        return status, child.last_line

    async def _see_ready(self) -> None:
        started = self._clock()
        await self._ready_probe(self.program.ready_url)
        self.ready.set()
        self._note(f"ready after {self._clock() - started:.1f} s")

    def _write(self, line: str) -> None:
        self._report(self.program.name, line)

    def _note(self, text: str) -> None:
        self._report("atrium", f"{self.program.name} {text}")
