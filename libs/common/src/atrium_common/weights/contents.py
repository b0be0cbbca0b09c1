"""The files of a package, wherever they lie: installed, in a wheel, in an npm tarball.

`packages.py` reads them; nothing here imports or runs what is in a package.
"""

import importlib.metadata
import tarfile
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Protocol


class Contents(Protocol):
    """Reads files of one package by their paths in it, with forward slashes."""

    def matching(self, pattern: str) -> list[str]:
        """Returns the paths that match a pattern with ``*``, in alphabetical order."""
        ...

    def open(self, path: str) -> IO[bytes] | None:
        """Opens a file; ``None`` if it is not there."""
        ...


class InstalledPackage:
    """A Python package where pip put it."""

    def __init__(self, folder: Path) -> None:
        """Takes the folder that its paths are relative to."""
        self._folder = folder

    @classmethod
    def find(cls, package: str, version: str) -> "InstalledPackage | None":
        """Finds a package in this environment; ``None`` if this version is not there."""
        try:
            distribution = importlib.metadata.distribution(package)
        except importlib.metadata.PackageNotFoundError:
            return None
        if distribution.version != version:
            return None
        return cls(Path(str(distribution.locate_file(""))))

    def matching(self, pattern: str) -> list[str]:
        """Implements `Contents`."""
        found = (path.relative_to(self._folder) for path in self._folder.glob(pattern))
        return sorted(path.as_posix() for path in found)

    def open(self, path: str) -> IO[bytes] | None:
        """Implements `Contents`."""
        file = self._folder / path
        return file.open("rb") if file.is_file() else None


class Wheel:
    """A Python package as it was downloaded; each file is checked by its CRC as it is read."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        """Takes the open wheel."""
        self._archive = archive
        self._names = frozenset(archive.namelist())

    def matching(self, pattern: str) -> list[str]:
        """Implements `Contents`."""
        return sorted(name for name in self._names if fnmatchcase(name, pattern))

    def open(self, path: str) -> IO[bytes] | None:
        """Implements `Contents`."""
        return self._archive.open(path) if path in self._names else None


class Tarball:
    """An npm package as it was downloaded: everything lies in one folder of any name."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        """Takes the open tarball; only its regular files count."""
        self._archive = archive
        self._members = {
            member.name.partition("/")[2]: member for member in archive if member.isfile()
        }

    def matching(self, pattern: str) -> list[str]:
        """Implements `Contents`."""
        return sorted(name for name in self._members if fnmatchcase(name, pattern))

    def open(self, path: str) -> IO[bytes] | None:
        """Implements `Contents`."""
        member = self._members.get(path)
        return None if member is None else self._archive.extractfile(member)
