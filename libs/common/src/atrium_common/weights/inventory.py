"""What of the catalogue lies on this machine: told, verified, removed. The CLI asks it.

`WeightStore` serves the engines; this is for the operator.
"""

import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from atrium_common.catalogue import Entry, FolderSource, Source
from atrium_common.catalogue_sources import MANIFEST
from atrium_common.errors import InvalidArgument
from atrium_common.weights.errors import WeightsError, disk_errors
from atrium_common.weights.manifest import Manifest, sha256_of
from atrium_common.weights.staging import partial_folder
from atrium_common.weights.store import WeightStore


class State(StrEnum):
    """What lies there of an entry, as far as names, sizes and times tell."""

    NONE = "no files"
    """It has none: a provider's model, or a fake."""
    PRESENT = "present"
    PARTIAL = "partial"
    """A pull was cut; the next one goes on from there."""
    CHANGED = "changed"
    """It was whole once; now a file is gone, or its size or time is another. Verify it."""
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """A file that is not what it should be.

    Attributes:
        entry: Catalogue id.
        file: Its name in the entry's folder; empty where the whole entry is meant.
        problem: ``"missing"``, ``"size"`` or ``"digest"``.
        folder: The entry's folder; empty where there is none.
    """

    entry: str
    file: str
    problem: str
    folder: str = ""


class Inventory:
    """Looks through one store. Blocking."""

    def __init__(self, store: WeightStore) -> None:
        """Takes the store."""
        self._store = store

    def state(self, entry: Entry) -> State:
        """Says what lies there, without reading weights."""
        if not entry.sources:
            return State.NONE
        found = [self._state(entry, source) for source in entry.sources]
        order = [State.PRESENT, State.CHANGED, State.PARTIAL, State.MISSING]
        return min(found, key=order.index)

    def folder(self, entry: Entry) -> Path | None:
        """Returns where the entry's files lie, whole or not."""
        return next((folder for _, folder in self._places(entry)), None)

    def examine(
        self, entry: Entry, checked: Callable[[int], None] = lambda _: None
    ) -> list[Finding]:
        """Reads every byte of the entry's files; returns what is wrong with them.

        Args:
            entry: The entry.
            checked: Called with the bytes that were read.
        """
        if not entry.sources:
            return []
        found: list[Finding] | None = None
        for source, folder in self._places(entry):
            found = list(_findings(entry, source, folder, checked))
            if not found:
                return []
        return [Finding(entry.id, "", "missing")] if found is None else found

    def remove(self, entries: Sequence[Entry], *, everything: Collection[Entry]) -> int:
        """Deletes the entries' files, what engines made of them, and cut downloads.

        Args:
            entries: What to remove.
            everything: All entries of the catalogue, with which they may share files.

        Returns:
            Bytes that were deleted.

        Raises:
            InvalidArgument: One shares its files with an entry that stays, or lies in a
                folder of the operator's own; nothing was deleted.
            WeightsError: One is being fetched, or the disk refuses.
        """
        for entry in entries:
            self._refuse(entry, entries, everything)
        with disk_errors(self._store.root):
            return sum(self._remove(entry) for entry in entries)

    def _refuse(
        self, entry: Entry, entries: Sequence[Entry], everything: Collection[Entry]
    ) -> None:
        kept = [source for source in entry.sources if isinstance(source, FolderSource)]
        if kept and self.folder(entry) == kept[0].path:
            raise InvalidArgument(
                f"{entry.id} lies in {kept[0].path}, a folder of your own: delete it there",
                field="models",
            )
        mine = _fingerprints(entry)
        chosen = {each.id for each in entries}
        sharers = [
            other.id
            for other in everything
            if other.id not in chosen and _fingerprints(other) & mine
        ]
        if sharers and self.folder(entry) is not None:
            raise InvalidArgument(
                f"{entry.id} shares its files with {', '.join(sharers)}: name all of them",
                field="models",
            )

    def _remove(self, entry: Entry) -> int:
        root = self._store.root
        freed = 0
        for name in sorted(_fingerprints(entry)):
            partial = partial_folder(root, name)
            if partial.exists():
                from atrium_common.weights.locks import locked

                with locked(root, name, waits=None) as held:
                    if not held:
                        raise WeightsError(f"{entry.id} is being fetched", reason="IN_USE")
                    freed += self._delete(partial)
            for folder in root.glob(f"*/{name}"):
                freed += self._delete(folder)
        return freed + self._delete(root / entry.id)

    def _delete(self, folder: Path) -> int:
        """Deletes a folder, which is gone under its own name at once."""
        if not folder.exists():
            return 0
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        area = self._store.root / ".staging"
        area.mkdir(exist_ok=True)
        discarded = area / f"discarded-{uuid.uuid4().hex}"
        folder.rename(discarded)
        shutil.rmtree(discarded)
        return size

    def _places(self, entry: Entry) -> Iterator[tuple[Source, Path]]:
        """Gives the folders that are the entry's, in the order in which they count."""
        for source in entry.sources:
            for folder in self._store.folders(entry, source):
                own = isinstance(source, FolderSource) and folder.is_dir()
                if own or (folder / MANIFEST).is_file():
                    yield source, folder

    def _state(self, entry: Entry, source: Source) -> State:
        states = [
            State.CHANGED if any(_differences(source, folder)) else State.PRESENT
            for its, folder in self._places(entry)
            if its is source
        ]
        if isinstance(source, FolderSource):
            return State.PRESENT if State.PRESENT in states else State.MISSING
        if states:
            return min(states, key=[State.PRESENT, State.CHANGED].index)
        partial = partial_folder(self._store.root, source.fingerprint)
        return State.PARTIAL if partial.exists() else State.MISSING


def _fingerprints(entry: Entry) -> set[str]:
    return {source.fingerprint for source in entry.sources if not isinstance(source, FolderSource)}


def _expected(source: Source, folder: Path) -> dict[str, tuple[str, int]]:
    """Returns digest and size by file, empty and 0 where nobody says them."""
    expected = {file.name: (file.sha256 or "", file.size) for file in source.files}
    manifest = Manifest.read(folder)
    for file in manifest.files if manifest else ():
        digest, _ = expected.get(file.name, ("", 0))
        expected[file.name] = (digest or file.sha256, file.size)
    return expected


def _differences(source: Source, folder: Path) -> Iterator[str]:
    """Gives the files whose size or time is not what it was when they were checked."""
    if isinstance(source, FolderSource):
        yield from (file.name for file in source.files if not (folder / file.name).is_file())
        return
    manifest = Manifest.read(folder)
    if manifest is None:
        yield MANIFEST
        return
    for file in manifest.files:
        path = folder / file.name
        if not path.is_file():
            yield file.name
            continue
        status = path.stat()
        if (status.st_size, status.st_mtime_ns) != (file.size, file.modified):
            yield file.name


def _findings(
    entry: Entry, source: Source, folder: Path, checked: Callable[[int], None]
) -> Iterator[Finding]:
    for name, (digest, size) in _expected(source, folder).items():
        path = folder / name
        if not path.is_file():
            yield Finding(entry.id, name, "missing", str(folder))
        elif size and path.stat().st_size != size:
            yield Finding(entry.id, name, "size", str(folder))
        elif digest and sha256_of(path, checked) != digest:
            yield Finding(entry.id, name, "digest", str(folder))
