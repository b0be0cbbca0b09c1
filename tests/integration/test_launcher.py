"""The launcher's supervision, with small scripts in the place of the services."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from launcher import preflight
from launcher.errors import LaunchError
from launcher.keeper import Keeper
from launcher.options import parse
from launcher.programs import Program, plan
from launcher.suite import Suite

SERVES = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(600)"
)


def program(script: str, name: str = "llm") -> Program:
    return Program(
        name=name,
        command=(sys.executable, "-c", script),
        environment=dict(os.environ),
        ready_url="http://127.0.0.1:1/",
    )


class Lines(list[tuple[str, str]]):
    """Collects what is reported."""

    def __call__(self, name: str, text: str) -> None:
        self.append((name, text))

    async def until(self, wanted: Callable[[str], bool], *, count: int = 1) -> str:
        async with asyncio.timeout(10):
            while len(found := [text for _, text in self if wanted(text)]) < count:  # noqa: ASYNC110  polls
                await asyncio.sleep(0.01)
        return found[-1]


async def ready_at_once(_: str) -> None:
    return


async def never_ready(_: str) -> None:
    await asyncio.Event().wait()


async def test_a_program_that_dies_is_reported_and_started_again(tmp_path: Path) -> None:
    lines = Lines()
    keeper = Keeper(
        program("import os; print(os.getpid(), flush=True); import time; time.sleep(600)"),
        logs=tmp_path,
        report=lines,
        ready_probe=ready_at_once,
        first_pause=0.05,
    )
    run = asyncio.create_task(keeper.run())
    first = int(await lines.until(str.isdecimal))
    await keeper.ready.wait()
    os.kill(first, signal.SIGKILL)
    second = int(await lines.until(str.isdecimal, count=2))
    assert second != first
    assert ("atrium", "llm was ended by SIGKILL; starting it again in 0.05 s") in lines

    await keeper.stop(seconds=5)
    await run
    assert not psutil.pid_exists(second)
    assert (tmp_path / "llm.log").read_text().split() == [str(first), str(second)]


async def test_the_pause_between_two_deaths_doubles(tmp_path: Path) -> None:
    lines = Lines()
    keeper = Keeper(
        program("import time; time.sleep(0.1)"),
        logs=tmp_path,
        report=lines,
        ready_probe=ready_at_once,
        first_pause=0.02,
    )
    run = asyncio.create_task(keeper.run())
    await lines.until(lambda text: text.endswith("in 0.08 s"))
    await keeper.stop(seconds=5)
    await run
    pauses = [text.rpartition(" in ")[2] for _, text in lines if "again in" in text]
    assert pauses[:3] == ["0.02 s", "0.04 s", "0.08 s"]


async def test_a_program_that_dies_at_start_is_one_line(tmp_path: Path) -> None:
    keeper = Keeper(
        program("import sys; print('no such model'); sys.exit(3)"),
        logs=tmp_path,
        report=Lines(),
        ready_probe=never_ready,
    )
    with pytest.raises(LaunchError, match=r"llm stopped with exit status 3 .*: no such model") as e:
        await keeper.run()
    assert "\n" not in str(e.value)


async def test_what_does_not_stop_in_time_is_killed(tmp_path: Path) -> None:
    lines = Lines()
    keeper = Keeper(program(STUBBORN), logs=tmp_path, report=lines, ready_probe=ready_at_once)
    run = asyncio.create_task(keeper.run())
    await lines.until(lambda text: text == "up")
    await keeper.stop(seconds=0.3)
    await asyncio.wait_for(run, 5)
    assert ("atrium", "llm did not stop within 0.3 s; killed") in lines


async def test_the_gateway_stops_after_the_services(tmp_path: Path) -> None:
    lines = Lines()
    script = (
        "import signal, sys, time;"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit()));"
        "print('up', flush=True); time.sleep(600)"
    )
    async with Suite(logs=tmp_path / "logs", report=lines, drain_seconds=5) as suite:
        suite.start([program(script, "gateway"), program(script, "llm"), program(script, "stt")])
        await lines.until(lambda text: text == "up", count=3)
    said_bye = [name for name, text in lines if text == "bye"]
    assert said_bye[-1] == "gateway"
    assert set(said_bye) == {"gateway", "llm", "stt"}


async def test_a_failed_start_stops_the_others(tmp_path: Path) -> None:
    lines = Lines()
    before = set(psutil.Process().children())
    with pytest.raises(LaunchError, match="stt stopped with exit status 1"):  # noqa: PT012
        async with Suite(logs=tmp_path / "logs", report=lines, drain_seconds=5) as suite:
            suite.start([program(SERVES, "llm"), program("raise SystemExit('no')", "stt")])
            await suite.until_ready(seconds=10, on_wait=lambda _: None)
    assert set(psutil.Process().children()) <= before


async def test_a_program_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"llm not ready within 0\.5 s"):  # noqa: PT012
        async with Suite(logs=tmp_path / "logs", report=Lines(), drain_seconds=5) as suite:
            suite.start([program(SERVES)])
            await suite.until_ready(seconds=0.5, on_wait=lambda _: None)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's death")
def test_nothing_outlives_a_killed_launcher(tmp_path: Path) -> None:
    script = f"""
import asyncio, os, sys
from pathlib import Path
from launcher.child import Child
from launcher.programs import Program
async def main():
    program = Program("llm", (sys.executable, "-c", {SERVES!r}), dict(os.environ), "")
    child = await Child.spawn(program, log=Path({str(tmp_path / "log")!r}), on_line=lambda _: None)
    print(child.pid, flush=True)
    await child.wait()
asyncio.run(main())
"""
    launcher = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(preflight.__file__).parents[1])},
    )
    assert launcher.stdout is not None
    with launcher.stdout:
        child = int(launcher.stdout.readline())
    launcher.kill()
    launcher.wait()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(child)


async def test_a_long_or_broken_line_is_no_problem(tmp_path: Path) -> None:
    lines = Lines()
    script = "import sys; sys.stdout.buffer.write(b'x' * 300_000 + b'\\nend \\xff')"
    keeper = Keeper(program(script), logs=tmp_path, report=lines, ready_probe=never_ready)
    with pytest.raises(LaunchError, match="end"):
        await keeper.run()
    assert sum(len(text) for _, text in lines) == 300_000 + len("end \N{REPLACEMENT CHARACTER}")
    assert (tmp_path / "llm.log").stat().st_size >= 300_000


def test_a_port_in_use_names_its_variable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(LaunchError, match=rf"^port {port} \(ATRIUM_LLM_PORT\) is in use"):
            preflight.check_ports({"ATRIUM_LLM_PORT": port})
    preflight.check_ports({"ATRIUM_LLM_PORT": port})


def test_a_state_folder_has_one_launcher(tmp_path: Path) -> None:
    held = f"already runs on .*process {os.getpid()}"
    with (
        preflight.lock(tmp_path),
        pytest.raises(LaunchError, match=held),
        preflight.lock(tmp_path),
    ):
        pass
    with preflight.lock(tmp_path):
        pass


def test_secrets_are_for_their_owner_alone_and_stay(tmp_path: Path) -> None:
    credential = preflight.kept_credential(tmp_path)
    assert len(credential) >= 32
    assert preflight.kept_credential(tmp_path) == credential
    assert (tmp_path / "service.credential").stat().st_mode & 0o777 == 0o600


def test_every_program_gets_its_own_ports_and_no_shared_one() -> None:
    environment = {"ATRIUM_PORT": "18000", "ATRIUM_LLM_PORT": "17865", "PATH": "/bin"}
    options = parse(["--services", "llm"], environment)
    programs = plan(options, credential="c" * 32, environment=environment)
    assert [p.name for p in programs] == ["llm", "gateway"]
    for each in programs:
        assert "ATRIUM_PORT" not in each.environment
        assert each.environment["ATRIUM_GATEWAY_PORT"] == "18000"
        assert each.environment["ATRIUM_GATEWAY_LLM_TARGET"] == "127.0.0.1:17865"
    assert programs[1].ready_url == "http://127.0.0.1:18000/health/ready"


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--services", "llm,video"], {}),
        (["--port", "70000"], {}),
        ([], {"ATRIUM_STT_PORT": "x"}),
    ],
)
def test_wrong_options_are_refused(
    arguments: list[str], environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as e:
        parse(arguments, environment)
    assert e.value.code == 2
    assert "error:" in capsys.readouterr().err
