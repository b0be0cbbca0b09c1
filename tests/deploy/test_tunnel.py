"""The tunnel of `deploy/tunnel`: the very command of its unit, against a real sshd."""

import getpass
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest

from tests.kit.suite import ROOT, free_ports, wait_until

UNIT = ROOT / "deploy/tunnel/atrium-tunnel@.service"
INSTALL = ROOT / "deploy/tunnel/install.sh"
ACCOUNT = "atrium-tunnel"
ANSWER = b"the gateway"
_AWAY_SECONDS = 60
"""Longest time that the tunnel may be away, as the guide says."""


def unit_values(key: str) -> list[str]:
    text = UNIT.read_text().replace("\\\n", " ")
    return re.findall(rf"(?m)^{key}=(.*)$", text)


def defaults() -> dict[str, str]:
    """Variables that the unit sets by itself."""
    pairs = [pair for line in unit_values("Environment") for pair in shlex.split(line)]
    return dict(pair.split("=", 1) for pair in pairs)


def command(environment: Mapping[str, str]) -> list[str]:
    """`ExecStart` as systemd would run it: ``${A}`` is one word, ``$A`` as many as it has."""
    (line,) = unit_values("ExecStart")
    words: list[str] = []
    for word in line.split():
        if found := re.fullmatch(r"\$(\w+)", word):
            words += environment[found[1]].split()
        else:
            words.append(re.sub(r"\$\{(\w+)\}", lambda name: environment[name[1]], word))
    return words


def install(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DESTDIR": str(folder)}
    return subprocess.run(
        [INSTALL, *arguments], env=environment, capture_output=True, text=True, check=False
    )


@dataclass(frozen=True)
class Ends:
    """Both machines, which are this one.

    Attributes:
        folder: What `install.sh` wrote.
        server: The sshd.
        environment: Of the unit.
        url: Where the gateway appears on the VPS.
    """

    folder: Path
    server: psutil.Process
    environment: Mapping[str, str]
    url: str

    def answers(self) -> bool:
        """Whether the gateway is there."""
        try:
            with urlopen(self.url, timeout=2) as answer:
                return bool(answer.read() == ANSWER)
        except (URLError, OSError):
            return False

    def session(self) -> psutil.Process:
        """The server's end of the connection."""
        (session,) = self.server.children()
        return session


class Gateway(BaseHTTPRequestHandler):
    """Stands for the gateway."""

    def do_GET(self) -> None:
        """Answers."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def gateway() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory, gateway: int) -> Iterator[Ends]:
    folder = tmp_path_factory.mktemp("tunnel")
    ssh_port, remote_port = free_ports(2)
    assert install(folder, "gpu", "vps", "127.0.0.1", str(ssh_port)).returncode == 0
    keys = folder / "etc/atrium/tunnel"
    public = (keys / "id_ed25519.pub").read_text().strip()
    assert install(folder, "vps", public, str(remote_port)).returncode == 0
    host_key = folder / "host_key"
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", host_key], check=True)
    host = " ".join(host_key.with_suffix(".pub").read_text().split()[:2])
    (keys / "known_hosts").write_text(f"[127.0.0.1]:{ssh_port} {host}\n")
    rules = (folder / "etc/ssh/sshd_config.d/atrium-tunnel.conf").read_text()
    rules = rules.replace(f"User {ACCOUNT}", f"User {getpass.getuser()}")
    rules = rules.replace("/etc/ssh/", f"{folder}/etc/ssh/")
    config = folder / "sshd_config"
    config.write_text(
        f"Port {ssh_port}\nListenAddress 127.0.0.1\nHostKey {host_key}\nPidFile none\n"
        f"UsePAM no\nStrictModes no\n{rules}"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd of root needs it
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ["PATH"])
    assert sshd is not None
    with (folder / "sshd.log").open("w") as log:
        running = subprocess.Popen([sshd, "-D", "-e", "-f", config], stderr=log)
    given = {
        "SSH_HOST": "127.0.0.1",
        "SSH_PORT": str(ssh_port),
        "SSH_USER": getpass.getuser(),
        "TUNNEL_DIR": str(keys),
        "REMOTE_PORT": str(remote_port),
        "GATEWAY": f"127.0.0.1:{gateway}",
        "ALIVE_SECONDS": "1",
        "ALIVE_COUNT": "1",
    }
    server = psutil.Process(running.pid)
    try:
        yield Ends(folder, server, defaults() | given, f"http://127.0.0.1:{remote_port}/")
    finally:
        for process in (*server.children(recursive=True), server):
            process.kill()
        running.wait()


@contextmanager
def tunnel(ends: Ends, **more: str) -> Iterator[psutil.Process]:
    """The unit's program, running; ended as systemd would, with all of its children."""
    environment = {**ends.environment, **more}
    variables = {"PATH": os.environ["PATH"], **environment}
    with (ends.folder / "tunnel.log").open("a") as log:
        running = subprocess.Popen(
            command(environment), env=variables, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield psutil.Process(running.pid)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGTERM)
        running.wait(10)


def eventually(check: Callable[[], bool], what: str) -> float:
    """Waits; returns how long."""
    began = time.monotonic()
    wait_until(check, seconds=_AWAY_SECONDS, what=what)
    return time.monotonic() - began


def test_it_comes_back_by_itself(ends: Ends) -> None:
    with tunnel(ends) as autossh:
        eventually(ends.answers, "the tunnel")
        # The server's end is killed, as by a restart of the VPS.
        ends.session().kill()
        eventually(ends.answers, "the tunnel after a kill")
        assert autossh.is_running()
        # It falls silent, as a cut line: the other end notices by itself, and tries again until
        # the server has given the old connection up.
        silent = ends.session()
        (ssh,) = autossh.children()
        silent.suspend()
        eventually(lambda: not ssh.is_running(), "the end of a silent connection")
        assert not ends.answers()
        silent.kill()
        eventually(ends.answers, "the tunnel after silence")
    wait_until(lambda: not ends.server.children(), what="the end of the connection")


@pytest.mark.parametrize(
    "more",
    [
        {"REMOTE_PORT": "1"},  # the key may not listen there
        {"MORE_OPTIONS": "-o UserKnownHostsFile=/dev/null", "TUNNEL_DIR": "/nonexistent"},
    ],
    ids=["another port", "an unknown server"],
)
def test_it_does_not_stand_half(ends: Ends, more: dict[str, str]) -> None:
    """A connection without its forwarding, or to somebody else, is none."""
    with tunnel(ends, AUTOSSH_GATETIME="30", **more) as autossh:
        assert autossh.wait(_AWAY_SECONDS) != 0


@pytest.mark.parametrize("arguments", [("true",), ("-W", "127.0.0.1:22"), ("-tt",)], ids=str)
def test_its_key_opens_nothing_else(ends: Ends, arguments: tuple[str, ...]) -> None:
    options, values = [], ends.environment
    for name in ("IdentityFile=id_ed25519", "UserKnownHostsFile=known_hosts"):
        key, file = name.split("=")
        options += ["-o", f"{key}={values['TUNNEL_DIR']}/{file}"]
    first = arguments if arguments[0].startswith("-") else ()
    last = () if first else arguments
    target = ["-p", values["SSH_PORT"], f"{values['SSH_USER']}@127.0.0.1"]
    ssh = ["ssh", "-F", "none", "-o", "BatchMode=yes", *options, *first, *target, *last]
    done = subprocess.run(ssh, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode != 0
    assert done.stdout == b""


def test_what_the_unit_promises_adds_up() -> None:
    values = {name: int(text) for name, text in defaults().items() if text.isdigit()}
    noticed = values["ALIVE_SECONDS"] * (values["ALIVE_COUNT"] + 1)
    again = values["AUTOSSH_POLL"] + values["CONNECT_SECONDS"]
    assert noticed + again < _AWAY_SECONDS
    assert values["AUTOSSH_GATETIME"] == 0  # else a first try that fails is the last
    assert unit_values("Restart") == ["always"]
    assert int(unit_values("RestartSec")[0]) <= values["AUTOSSH_POLL"]
    assert unit_values("StartLimitIntervalSec") == ["0"]
    rules = INSTALL.read_text()
    alive = re.search(r"ClientAliveInterval (\d+)\n  ClientAliveCountMax (\d+)", rules)
    assert alive is not None
    # The old connection's port is free again before the next try but one.
    assert int(alive[1]) * (int(alive[2]) + 1) <= noticed


def test_systemd_reads_the_units() -> None:
    verify = shutil.which("systemd-analyze")
    for unit in (UNIT, ROOT / "deploy/nginx/atrium-edge.service") if verify else ():
        done = subprocess.run(
            [str(verify), "verify", unit], capture_output=True, text=True, check=False
        )
        complaints = [line for line in done.stderr.splitlines() if unit.stem in line]
        assert complaints == []


def test_installing_again_changes_nothing(tmp_path: Path) -> None:
    def written() -> dict[str, tuple[int, bytes]]:
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        return {str(file): (file.stat().st_mode, file.read_bytes()) for file in files}

    def both() -> None:
        assert install(tmp_path, "gpu", "vps", "vps.example.com").returncode == 0
        key = (tmp_path / "etc/atrium/tunnel/id_ed25519.pub").read_text().strip()
        assert install(tmp_path, "vps", key, "18000", "18001").returncode == 0

    both()
    mine = tmp_path / "etc/atrium/tunnel/vps.env"
    mine.write_text(mine.read_text() + "REMOTE_PORT=18005\n")
    first = written()
    both()
    assert written() == first
    (line,) = (tmp_path / "etc/ssh/atrium-tunnel.keys").read_text().splitlines()
    assert line.startswith(
        'restrict,port-forwarding,permitlisten="127.0.0.1:18000",permitlisten="127.0.0.1:18001" '
    )
    private = tmp_path / "etc/atrium/tunnel/id_ed25519"
    assert private.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("gpu", "../x", "host"),
        ("vps", "ssh-rsa AAAA"),
        ("vps", 'ssh-ed25519 AAAA "\nssh-ed25519 BBBB'),
        ("vps", "ssh-ed25519 AAAA", "80 81"),
    ],
    ids=["nothing", "a path", "another key", "two keys", "no port"],
)
def test_odd_arguments_are_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert install(tmp_path, *arguments).returncode == 2
    assert not list(tmp_path.rglob("*.keys"))
