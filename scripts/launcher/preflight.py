"""Finds out before anything starts why it could not; `main.py` calls it first.

Every check raises `LaunchError` with one line that says what to do.
"""

import errno
import fcntl
import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from launcher.errors import LaunchError
from launcher.options import Options

NEEDED_MB = 200
"""Room for the ledger, the spool and the logs; the weights are checked when they are fetched."""


def check(options: Options) -> None:
    """Checks files, disk and ports.

    Raises:
        LaunchError: With the first thing that is wrong.
    """
    if not options.catalogue.is_file():
        raise LaunchError(f"there is no catalogue {options.catalogue}: name one with --catalogue")
    try:
        options.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        free_mb = shutil.disk_usage(options.state).free // 2**20
    except OSError as err:
        raise LaunchError(f"the state folder {options.state}: {err.strerror}") from err
    if not os.access(options.state, os.W_OK):
        raise LaunchError(f"the state folder {options.state} can't be written")
    if free_mb < NEEDED_MB:
        raise LaunchError(
            f"only {free_mb} MB are free at {options.state}, {NEEDED_MB} MB are needed:"
            " free some, or name another disk with --state"
        )
    check_ports(options.ports)


def check_ports(ports: Mapping[str, int]) -> None:
    """Checks that every port is free and is named once.

    Raises:
        LaunchError: Naming all that are not, and their variables.
    """
    busy = [f"{port} ({variable})" for variable, port in ports.items() if not _is_free(port)]
    if busy:
        are = "ports {} are" if len(busy) > 1 else "port {} is"
        raise LaunchError(
            are.format(", ".join(busy)) + " in use: stop what listens there, or set the variable"
            " to another port"
        )
    if len(set(ports.values())) < len(ports):
        raise LaunchError("two settings name one port: " + ", ".join(sorted(ports)))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Connections that linger after a stop don't count; a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as err:
            if err.errno == errno.EACCES:
                raise LaunchError(f"port {port} may not be opened by this user") from err
            return False
    return True


@contextmanager
def lock(state: Path) -> Iterator[None]:
    """Holds `state` for one launcher; the lock ends with the process, however it ends.

    Raises:
        LaunchError: Another one holds it.
    """
    with (state / "run.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise LaunchError(
                f"Atrium already runs on {state} (process {holder}): stop it, or name another"
                " folder with --state"
            ) from err
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def kept_credential(state: Path) -> str:
    """The secret that the suite's processes share; made at the first start, mode 0600."""
    path = state / "service.credential"
    if path.exists():
        return path.read_text().strip()
    credential = secrets.token_hex(32)
    write_secret(path, credential)
    return credential


def write_secret(path: Path, text: str) -> None:
    """Puts `text` into `path` at once or not at all, readable by its owner alone."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(text + "\n")
    draft.replace(path)
