"""The edge, as `deploy/nginx/start.sh` runs it: a real nginx with a certificate of a test's own."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from atrium_gateway.testing.servers import ServerProcess
from tests.kit.suite import ROOT, free_ports

_SOURCES = ROOT / "deploy/nginx"
_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")
_ACCOUNT = "nobody"


class Authority:
    """A certificate authority; `file` is what clients trust."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "ca.pem"
        self._key = folder / "ca.key"
        _openssl("-x509", *_CURVE, "-subj", "/CN=Test CA", "-keyout", self._key, "-out", self.file)

    def issue(self, folder: Path) -> None:
        """Writes a certificate of localhost, and installs it as an operator does."""
        chain, key = folder / "leaf.pem", folder / "leaf.key"
        issuer = ("-CA", self.file, "-CAkey", self._key)
        names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
        usage = ("-addext", "basicConstraints=critical,CA:FALSE")
        _openssl("-x509", *issuer, *_CURVE, *names, *usage, "-keyout", key, "-out", chain)
        install = [_SOURCES / "certificate.sh", "install", chain, key, folder / "secrets/tls"]
        subprocess.run(install, check=True, capture_output=True)


class Edge(ServerProcess):
    """A running edge; `url` is its TLS address, `plain` the other one."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        https, http = free_ports(2)
        given = {
            "PATH": os.environ["PATH"],
            "EDGE_RUN_DIR": str(folder / "run"),
            "EDGE_TLS": str(folder / "secrets/tls"),
            "EDGE_ACME": str(folder),
            "EDGE_ACCESS_LOG": str(folder / "access.log"),
            "EDGE_HTTPS_LISTEN": f"127.0.0.1:{https}",
            "EDGE_HTTP_LISTEN": f"127.0.0.1:{http}",
            "EDGE_HTTPS_PORT": str(https),
            **environment,
        }
        command = ["env", "-i", *(f"{name}={value}" for name, value in given.items())]
        start = ["sh", str(folder / "nginx/start.sh")]
        super().__init__([*_unprivileged(folder), *command, *start], port=https, folder=folder)
        self.url, self.plain = f"https://localhost:{https}", f"http://localhost:{http}"

    @property
    def access_log(self) -> str:
        """Its lines so far."""
        return (self.folder / "access.log").read_text()

    def stop(self) -> None:
        """Ends it with its workers, whatever they do."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(10)

    def _answers(self) -> bool:
        # A connection alone says nothing: checking its configuration, nginx listens, too.
        try:
            with urlopen(f"{self.plain}/edge/live", timeout=2) as answer:
                return bool(answer.status == 204)
        except (URLError, OSError):
            return False


@contextmanager
def running_edge(authority: Authority, **environment: str) -> Iterator[Edge]:
    """Runs an edge with EDGE_* variables, in lower case here; ends it.

    It runs as an account of no rights where this process is root's, as in its container.
    """
    with tempfile.TemporaryDirectory(prefix="atrium-edge-") as name:
        folder = Path(name)
        shutil.copytree(_SOURCES, folder / "nginx")
        authority.issue(folder)
        edge = Edge(folder, {f"EDGE_{name.upper()}": text for name, text in environment.items()})
        try:
            edge.start()
            yield edge
        finally:
            edge.stop()


def _unprivileged(folder: Path) -> list[str]:
    """What begins a command for an account of no rights, which gets `folder`."""
    if os.getuid() != 0:
        return []
    for path in (folder, folder / "secrets"):
        shutil.chown(path, _ACCOUNT)
    return ["setpriv", f"--reuid={_ACCOUNT}", "--regid=nogroup", "--clear-groups"]


def _openssl(*arguments: str | Path) -> None:
    command = ["openssl", "req", *arguments, "-days", "2"]
    subprocess.run(command, check=True, capture_output=True)
