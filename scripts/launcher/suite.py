"""The programs together: all started, all ready, all stopped in the order that settles usage.

`main.py` holds it as a context: whatever happens, nothing is left running.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from launcher.display import Report
from launcher.errors import LaunchError
from launcher.keeper import Keeper
from launcher.programs import Program

_KILL_AFTER_DRAIN_SECONDS = 10.0


class Suite:
    """Holds a keeper per program.

    Args:
        logs: Folder of the programs' logs; they are begun anew.
        report: Takes what the programs write.
        drain_seconds: Time that the programs give to running requests when they stop.
    """

    def __init__(self, *, logs: Path, report: Report, drain_seconds: float) -> None:
        self._logs = logs
        self._report = report
        self._stop_seconds = drain_seconds + _KILL_AFTER_DRAIN_SECONDS
        self._keepers: list[Keeper] = []
        self._runs: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop()

    def start(self, programs: Sequence[Program]) -> None:
        """Starts `programs` beside those that run already."""
        for program in programs:
            (self._logs / f"{program.name}.log").write_bytes(b"")
            keeper = Keeper(program, logs=self._logs, report=self._report)
            self._keepers.append(keeper)
            self._runs.append(asyncio.create_task(keeper.run(), name=program.name))

    async def until_ready(self, *, seconds: float, on_wait: Callable[[list[str]], None]) -> None:
        """Waits until every started program is ready.

        Args:
            seconds: Longest wait.
            on_wait: Called now and then with the names of those that are not ready.

        Raises:
            LaunchError: One died, or the time is over.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        while waiting := [k.program.name for k in self._keepers if not k.ready.is_set()]:
            on_wait(waiting)
            self._raise_failure()
            if asyncio.get_running_loop().time() > deadline:
                raise LaunchError(
                    f"{', '.join(waiting)} not ready within {seconds:g} s (see {self._logs}); "
                    f"on a slow machine: --start-seconds {3 * seconds:g}"
                )
            await asyncio.wait(self._runs, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)

    async def watch(self) -> None:
        """Runs as long as the suite does; a keeper that fails ends it with its error."""
        await asyncio.wait(self._runs, return_when=asyncio.FIRST_EXCEPTION)
        self._raise_failure()

    def kill(self) -> None:
        """Ends every process at once."""
        for keeper in self._keepers:
            keeper.kill()

    def _raise_failure(self) -> None:
        for run in self._runs:
            if run.done() and not run.cancelled() and (error := run.exception()):
                raise error

    async def _stop(self) -> None:
        """Stops the services, then the gateway, which takes their last settlements."""
        services = [k for k in self._keepers if k.program.name != "gateway"]
        gateway = [k for k in self._keepers if k.program.name == "gateway"]
        for group in (services, gateway):
            await asyncio.gather(*(k.stop(seconds=self._stop_seconds) for k in group))
        await asyncio.gather(*self._runs, return_exceptions=True)
