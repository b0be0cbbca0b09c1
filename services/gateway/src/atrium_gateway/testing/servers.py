"""Real Redis and PostgreSQL servers of a test's own, on free ports and in temporary folders.

Tests, benchmarks and the chaos rounds enter `redis_server` and `postgres_server`; what is
entered can be killed and started again on the same port and data.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

_START_SECONDS = 30.0
_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.02
_HOST = "127.0.0.1"
_OWNERS = ("postgres", "nobody")
"""Accounts that run PostgreSQL where this process is root's: it refuses to be root."""


class ServerProcess(ABC):
    """A server that can be killed and started again; `_answers` says whether it serves.

    Args:
        command: Starts it in the foreground.
        port: The port that `command` names.
        folder: Its log goes there.
    """

    def __init__(self, command: Sequence[str], *, port: int, folder: Path) -> None:
        self.port = port
        self.folder = folder
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, seconds: float = _START_SECONDS) -> None:
        """Starts it and waits until it serves; after a kill the port and the data are the same.

        Raises:
            TimeoutError: It does not serve in time; with the end of its log.
        """
        deadline = time.monotonic() + seconds
        while not self._answers():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._command[0]} does not serve:\n{self._log_end()}")
            if not self.running:
                # A killed one's children may hold its memory for another moment: once more.
                self._spawn()
            time.sleep(_POLL_SECONDS)

    def kill(self) -> None:
        """Ends it with SIGKILL: it writes nothing any more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ends it and its children at once; for the end, when nobody needs the data."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def _spawn(self) -> None:
        self.kill()
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
            )

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it serves now."""

    def _log_end(self) -> str:
        log = self.folder / "server.log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else ""


class RedisServer(ServerProcess):
    """A Redis; with `durable`, what it has answered is on disk and survives a kill."""

    def __init__(self, folder: Path, *, durable: bool, options: Sequence[str] = ()) -> None:
        port = _free_port()
        command = ["redis-server", "--port", str(port), "--bind", _HOST, "--save", ""]
        command += ["--dir", str(folder), "--appendonly", "yes" if durable else "no"]
        command += ["--appendfsync", "always" if durable else "no", *options]
        super().__init__(command, port=port, folder=folder)

    @property
    def url(self) -> str:
        """Address of its first database."""
        return f"redis://{_HOST}:{self.port}/0"

    def wipe(self) -> None:
        """Removes the data of a killed server, as a lost machine would."""
        for kept in self.folder.iterdir():
            shutil.rmtree(kept) if kept.is_dir() else kept.unlink()

    def _answers(self) -> bool:
        try:
            with socket.create_connection((_HOST, self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


class PostgresServer(ServerProcess):
    """A PostgreSQL with a superuser `atrium`, without a password, and a database per caller."""

    def __init__(self, folder: Path, *, fsync: bool) -> None:
        port = _free_port()
        user = _other_owner()
        if user is not None:
            owner = pwd.getpwnam(user)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        data = folder / "data"
        init = [_program("initdb"), "--pgdata", str(data), "--username", "atrium"]
        init += ["--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync"]
        as_user = _as_user(user)
        subprocess.run([*as_user, *init], check=True, capture_output=True, cwd=folder)  # noqa: S603
        durable = "on" if fsync else "off"
        options = {
            "port": str(port),
            "listen_addresses": _HOST,
            "unix_socket_directories": "",
            "fsync": durable,
            "full_page_writes": durable,
            # Off, a killed server would lose what it has acknowledged.
            "synchronous_commit": "on",
            "max_connections": "200",
        }
        command = [*as_user, _program("postgres"), "-D", str(data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        super().__init__(command, port=port, folder=folder)

    def dsn(self, database: str = "postgres") -> str:
        """Address of a database, as psycopg reads it."""
        return f"postgresql://atrium@{_HOST}:{self.port}/{database}"

    def url(self, database: str = "postgres") -> str:
        """Address of a database, as SQLAlchemy reads it."""
        return f"postgresql+psycopg://atrium@{_HOST}:{self.port}/{database}"

    def new_database(self, name: str) -> str:
        """Makes an empty database; returns its `url`."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def redis_server(*, durable: bool = False, options: Sequence[str] = ()) -> Iterator[RedisServer]:
    """A running Redis of the caller's own; killed and forgotten at the end.

    Args:
        durable: Whether what it has answered survives a kill.
        options: More of its command line.
    """
    with tempfile.TemporaryDirectory(prefix="atrium-redis-") as folder:
        server = RedisServer(Path(folder), durable=durable, options=options)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def postgres_server(*, fsync: bool = False) -> Iterator[PostgresServer]:
    """A running PostgreSQL of the caller's own; killed and forgotten at the end.

    Args:
        fsync: Whether a commit is on disk; off, it is faster and lost with the machine alone.
    """
    with tempfile.TemporaryDirectory(prefix="atrium-pg-") as folder:
        server = PostgresServer(Path(folder), fsync=fsync)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _program(name: str) -> str:
    """A program of PostgreSQL: in PATH, or where Debian puts the newest version's."""
    if found := shutil.which(name):
        return found
    versions = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    newest = max(versions, key=lambda path: int(path.parts[-3]), default=None)
    if newest is None:
        raise FileNotFoundError(f"PostgreSQL's {name} is not installed")
    return str(newest)


def _other_owner() -> str | None:
    """Who runs PostgreSQL; ``None`` for this process's own account."""
    if os.getuid() != 0:
        return None
    accounts = {account.pw_name for account in pwd.getpwall()}
    return next(name for name in _OWNERS if name in accounts)


def _as_user(user: str | None) -> list[str]:
    """What begins a command that another account runs.

    Not `subprocess`'s own option: it forks where it would not otherwise, and a fork of a process
    in which gRPC runs may crash.
    """
    if user is None:
        return []
    return ["setpriv", f"--reuid={user}", f"--regid={_group(user)}", "--clear-groups"]


def _group(user: str) -> int:
    return pwd.getpwnam(user).pw_gid
