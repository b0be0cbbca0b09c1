"""Starts the suite as `make run` does, on free ports, and talks to it as a person would."""

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from launcher.options import DEFAULT_PORTS

ROOT = Path(__file__).parents[2]
START_SECONDS = 90.0
"""Longest wait for a line; two busy cores need most of it."""


def free_ports() -> dict[str, int]:
    """A free port for each variable; all are held until all are found."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in DEFAULT_PORTS]
    try:
        return dict(zip(DEFAULT_PORTS, (each.getsockname()[1] for each in sockets), strict=True))
    finally:
        for each in sockets:
            each.close()


class SuiteProcess:
    """A running launcher; leaving the context kills what is left of it.

    Args:
        state: Folder of the suite's state.
        catalogue: Catalogue file.
        models: Folder of the weights.
        services: Services to start beside the gateway, with commas; all if not given.
        ports: Variable -> port; see `free_ports`.
    """

    def __init__(
        self,
        state: Path,
        *,
        catalogue: Path,
        ports: Mapping[str, int],
        models: Path | None = None,
        services: str | None = None,
    ) -> None:
        self.state = state
        self.ports = ports
        self.lines: list[str] = []
        self._incoming: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        command = [sys.executable, "scripts/run.py", "--state", str(state)]
        command += ["--catalogue", str(catalogue)]
        command += ["--models", str(models)] if models else []
        command += ["--services", services] if services else []
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=_environment() | {name: str(port) for name, port in ports.items()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._family: list[psutil.Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.family():
            process.kill()
        self.process.kill()
        self.process.wait()
        self._reader.join(timeout=10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def address(self) -> str:
        """Of the REST API."""
        return f"http://127.0.0.1:{self.ports['ATRIUM_GATEWAY_PORT']}"

    @property
    def output(self) -> str:
        """Everything that was printed."""
        while not self._incoming.empty():
            self._keep(self._incoming.get())
        return "\n".join(self.lines)

    def family(self) -> list[psutil.Process]:
        """The processes that it started and that still run."""
        if self.process.poll() is None:
            self._family = psutil.Process(self.process.pid).children(recursive=True)
        return [each for each in self._family if each.is_running()]

    def child(self, module: str) -> psutil.Process:
        """The process that runs `module`."""
        return next(each for each in self.family() if module in each.cmdline())

    def until(self, pattern: str, *, seconds: float = START_SECONDS) -> re.Match[str]:
        """Waits for a printed line; earlier lines count."""
        deadline = time.monotonic() + seconds
        seen = 0
        while True:
            for line in self.lines[seen:]:
                if found := re.search(pattern, line):
                    return found
            seen = len(self.lines)
            try:
                line = self._incoming.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(
                    f"no line {pattern!r} in {seconds} s:\n{self.output}"
                ) from None
            if line is None:
                raise AssertionError(f"it ended without a line {pattern!r}:\n{self.output}")
            self.lines.append(line)

    def until_ready(self) -> str:
        """Waits for the welcome; returns the key that it prints."""
        return self.until(r"Development key, .*: (\S+)$")[1]

    def wait(self, *, seconds: float = 40.0) -> int:
        """Waits for the end; returns the exit status."""
        self.family()
        return self.process.wait(timeout=seconds)

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.family()
        self.process.send_signal(signal.SIGINT)

    def request(
        self, path: str, *, key: str | None = None, body: object = None
    ) -> tuple[int, dict[str, Any]]:
        """One call of the REST API; returns its status and its JSON."""
        request = urllib.request.Request(f"{self.address}{path}")
        if key is not None:
            request.add_header("Authorization", f"Bearer {key}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as err:
            with err:
                return err.code, json.load(err)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._incoming.put(line.rstrip("\n"))
        self._incoming.put(None)

    def _keep(self, line: str | None) -> None:
        if line is not None:
            self.lines.append(line)


def _environment() -> dict[str, str]:
    """Ours without any setting of Atrium: a test means what it says."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ATRIUM_")}
    return kept | {"OMP_NUM_THREADS": "2"}
