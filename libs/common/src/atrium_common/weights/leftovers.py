"""What lies in the folder of models that a catalogue does not name: told, and removed.

A catalogue that moves on to another revision leaves the old one behind, whole or half fetched,
and nothing else ever deletes it. `atrium models list` and `prune` call this.
"""

import re
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from atrium_common.catalogue import Entry
from atrium_common.catalogue_sources import MANIFEST
from atrium_common.weights.errors import disk_errors
from atrium_common.weights.staging import PARTIAL_SUFFIX, partial_area, size_under

_FOLDER = re.compile(r"([0-9a-f]{12})(-[a-z0-9][a-z0-9.-]*)?")
"""A fingerprint, and behind it the name of what an engine made of these files."""


class Kind(StrEnum):
    """What was left."""

    DOWNLOAD = "cut download"
    MODEL = "model"
    MADE = "made by an engine"


@dataclass(frozen=True, slots=True)
class Leftover:
    """A folder that no entry names.

    Attributes:
        path: The folder.
        kind: What is in it.
        fingerprint: Of the source that it belongs to.
    """

    path: Path
    kind: Kind
    fingerprint: str

    @property
    def size(self) -> int:
        """Bytes that it holds now."""
        return size_under(self.path)


def leftovers(root: Path, named: Collection[Entry]) -> list[Leftover]:
    """Finds what none of the entries names, cut downloads first.

    Args:
        root: The folder of models. What does not look like ours is passed over.
        named: The entries of every catalogue that uses it.
    """
    known = {source.fingerprint for entry in named for source in entry.sources}
    found = (*_downloads(root), *_folders(root))
    return [each for each in found if each.fingerprint not in known]


def remove_leftover(root: Path, leftover: Leftover) -> int | None:
    """Deletes one, which is gone under its own name at once.

    Returns:
        Bytes that were deleted; ``None`` if another process is fetching it: then it stays.

    Raises:
        WeightsError: The disk refuses.
    """
    with disk_errors(root), _held(root, leftover) as held:
        if not held:
            return None
        size = leftover.size
        discarded = root / ".staging" / f"discarded-{uuid.uuid4().hex}"
        discarded.parent.mkdir(exist_ok=True)
        try:
            leftover.path.rename(discarded)
        except FileNotFoundError:  # it was finished, or removed by somebody else
            return 0
        shutil.rmtree(discarded)
        return size


def _held(root: Path, leftover: Leftover) -> AbstractContextManager[bool]:
    if leftover.kind is not Kind.DOWNLOAD:
        return nullcontext(True)
    from atrium_common.weights.locks import locked  # comes with what downloads

    return locked(root, leftover.fingerprint, waits=None)


def _downloads(root: Path) -> Iterator[Leftover]:
    for path in sorted(partial_area(root).glob(f"*{PARTIAL_SUFFIX}")):
        yield Leftover(path, Kind.DOWNLOAD, path.name.removesuffix(PARTIAL_SUFFIX))


def _folders(root: Path) -> Iterator[Leftover]:
    for path in sorted(root.glob("[!.]*/*")):
        match = _FOLDER.fullmatch(path.name)
        if match is None:
            continue
        if match[2]:
            yield Leftover(path, Kind.MADE, match[1])
        elif (path / MANIFEST).is_file():
            yield Leftover(path, Kind.MODEL, match[1])
