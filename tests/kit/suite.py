"""The whole suite, started the way a person starts it, on ports of its own.

The end-to-end tests and the benchmarks talk to it over real sockets. It runs
`scripts/run.py`, so what they see is what `make run` gives.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from typer.testing import CliRunner

from atrium_gateway.cli.app import app
from scripts.launcher.options import DEFAULT_PORTS

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / ".atrium" / "models"
"""Weights are shared with `make run`, so that they are fetched once."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; distinct."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@dataclass(frozen=True)
class Suite:
    """A running suite.

    Attributes:
        url: Address of the REST API.
        key: API key of the development tenant.
        state: Its state folder.
        ports: Environment variable to port.
        environment: What the launcher was started with.
        launcher: The launcher's process id.
        output: Lines that it has printed so far.
    """

    url: str
    key: str
    state: Path
    ports: Mapping[str, int]
    environment: Mapping[str, str]
    launcher: int
    output: list[str] = field(default_factory=list)

    def target(self, service: str) -> str:
        """Address of a model service's gRPC port."""
        return f"127.0.0.1:{self.ports[f'ATRIUM_{service.upper()}_PORT']}"

    def process(self, name: str) -> psutil.Process:
        """The process of a part of the suite: the gateway or a model service."""
        for child in psutil.Process(self.launcher).children(recursive=True):
            command = child.cmdline()
            if command[-2:] == ["-m", f"atrium_{name}"]:
                return child
        raise LookupError(f"no process of {name}")

    def credential(self) -> str:
        """The secret that the services share."""
        return self.process("gateway").environ()["ATRIUM_SERVICE_CREDENTIAL"]

    def atrium(self, *arguments: str) -> str:
        """Runs the `atrium` command on this suite's state; returns what it printed.

        In this process, for a new one takes seconds to import it; in a thread, for it
        brings an event loop of its own.
        """
        environment = self.process("gateway").environ()
        with ThreadPoolExecutor(1) as thread:
            done = thread.submit(CliRunner().invoke, app, arguments, env=environment).result()
        if done.exception is not None:
            raise done.exception
        return done.stdout


@contextmanager
def running_suite(
    state: Path,
    *,
    catalogue: str = "models/starter.yaml",
    services: str | None = None,
    environment: Mapping[str, str] | None = None,
    start_seconds: float = 300.0,
) -> Iterator[Suite]:
    """Starts the suite and stops it again; raises with its output if it does not start.

    `services` are those to start beside the gateway, with commas; all if not given.
    """
    ports = dict(zip(DEFAULT_PORTS, free_ports(len(DEFAULT_PORTS)), strict=True))
    variables = {
        **os.environ,
        "ATRIUM_MODELS_DIR": str(MODELS),
        **{name: str(port) for name, port in ports.items()},
        **(environment or {}),
    }
    command = [sys.executable, "scripts/run.py", "--catalogue", catalogue, "--state", str(state)]
    command += ["--services", services] if services else []
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if "Ctrl-C stops everything" in line:
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        ready.wait(start_seconds)
        if process.poll() is not None or not ready.is_set():
            raise RuntimeError("the suite did not start:\n" + "\n".join(lines[-60:]))
        text = "\n".join(lines)
        url = re.search(r"ready at (http://\S+)", text)
        assert url is not None, text
        key = (state / "dev.key").read_text().strip()
        yield Suite(url[1], key, state, ports, variables, process.pid, lines)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join(5)
        if process.stdout is not None:
            process.stdout.close()


def wait_until(check: object, *, seconds: float = 30.0, what: str = "it") -> None:
    """Polls a function until it returns something true."""
    assert callable(check)
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.05)
