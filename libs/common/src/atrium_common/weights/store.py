"""The folder of weights on this machine. Engines locate files in it, the CLI fills it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from atrium_common.catalogue import Entry, FolderSource, HubSource, Source
from atrium_common.weights.errors import WeightsError, disk_errors
from atrium_common.weights.fetch import check, fetch
from atrium_common.weights.hub_options import HubOptions
from atrium_common.weights.licences import LicenceBook
from atrium_common.weights.manifest import Manifest
from atrium_common.weights.progress import Meter, Progress, Report, silent
from atrium_common.weights.pull import pull_from_hub
from atrium_common.weights.staging import publish, staged

_CACHE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


class WeightStore:
    """Finds, fetches and checks the files of catalogue entries. Blocking; thread-safe.

    Several processes may work on one store. From the hub one of them fetches and the others
    wait; packages each fetches into a folder of its own, and the first to finish wins.
    """

    def __init__(
        self, root: Path, *, cache: Path | None = None, hub: HubOptions | None = None
    ) -> None:
        """Opens a store; creates nothing.

        Args:
            root: Folder of the weights; may be read-only where they are there already.
            cache: Folder of what engines derive from them; default is `root`.
            hub: How the model hub is reached; default is what the environment says.
        """
        self.root = root.absolute()
        self.licences = LicenceBook(self.root)
        self._cache = (cache or root).absolute()
        self._hub = hub

    def locate(self, entry: Entry) -> Path | None:
        """Returns the folder with the entry's files, or ``None`` if it is not there.

        Sources are tried in order. Normally this reads a manifest and no weights; files
        whose size or time differ from it are read, and count only if they are the same.
        """
        found = self._find(entry)
        return None if found is None else found[1]

    def ensure(self, entry: Entry, report: Report = silent) -> Path:
        """Returns the folder with the entry's files, and fetches them if need be.

        Sources are tried in order; the first that works is taken. An operator's folder
        is read in full, so that its digests hold too.

        Raises:
            WeightsError: No source works (the message tells of the first), a folder has
                other files than the catalogue says, or the licence was not accepted.
        """
        self.check_license(entry)
        found = self._find(entry)
        if found is None:
            folder = self._fetch(entry, report)
        else:
            source, folder = found
            if isinstance(source, FolderSource) and source.files:  # it has no manifest
                check(source, folder, Meter(entry.id, _size(source), report))
        report(Progress(entry.id, "ready"))
        return folder

    def check_license(self, entry: Entry) -> None:
        """Refuses an entry whose licence must be accepted first and was not.

        Raises:
            WeightsError: So it is; `reason` is ``LICENSE_NOT_ACCEPTED``.
        """
        if not self.licences.allows(entry):
            raise WeightsError(
                f"{entry.id}: read its licence ({entry.license}), then run `atrium models "
                f"licence accept {entry.id}`, or set license_accepted: true in the catalogue",
                reason="LICENSE_NOT_ACCEPTED",
            )

    def verify(self, entry: Entry) -> bool:
        """Reads every byte of the entry's files; false if any changed or is missing."""
        found = self._find(entry)
        if found is None:
            return False
        source, folder = found
        manifest = Manifest.read(folder)
        if isinstance(source, FolderSource) or manifest is None:
            try:
                check(source, folder, Meter(entry.id, 0, silent))
            except WeightsError:
                return False
            return True
        return manifest.holds(folder, thoroughly=True)

    def cached(self, entry: Entry, name: str) -> Path | None:
        """Returns what `derive` made under this name, or ``None``."""
        if self._find(entry) is None:
            return None
        target = self.cache_dir(entry, name)
        return target if target.is_dir() else None

    def derive(self, entry: Entry, name: str, build: Callable[[Path, Path], None]) -> Path:
        """Returns a folder that is made from the entry's files once, and then kept.

        Args:
            entry: The entry; its files must be there.
            name: What is made, e.g. ``"bf16"``; of a-z, 0-9, ``-`` and ``.``.
            build: Called with the folder of the weights and an empty folder to fill.
                What it leaves there appears whole, or not at all if it raises.

        Raises:
            WeightsError: The weights are not there, or the disk does not take it.
        """
        target = self.cache_dir(entry, name)
        if target.is_dir():
            return target
        _, weights = self._found(entry)
        way_out = "name a folder for what is made of weights with ATRIUM_CACHE_DIR"
        with disk_errors(self._cache, way_out=way_out), staged(self._cache) as folder:
            build(weights, folder)
            publish(folder, target, is_good=target.is_dir)
        return target

    def cache_dir(self, entry: Entry, name: str) -> Path:
        """Returns where `derive` keeps a folder; changed weights are another place."""
        if not _CACHE_NAME.fullmatch(name):
            raise ValueError(f"not a cache name: {name!r}")
        source, _ = self._found(entry)
        return self._cache / entry.id / f"{source.fingerprint}-{name}"

    def _find(self, entry: Entry) -> tuple[Source, Path] | None:
        for source in entry.sources:
            folder = self._find_from(entry, source)
            if folder is not None:
                return source, folder
        return None

    def _find_from(self, entry: Entry, source: Source) -> Path | None:
        folders = self.folders(entry, source)
        return next((folder for folder in folders if self._is_there(source, folder)), None)

    def _found(self, entry: Entry) -> tuple[Source, Path]:
        found = self._find(entry)
        if found is None:
            raise WeightsError(f"{entry.id} was not fetched yet", reason="MISSING_FILE")
        return found

    def _folder(self, entry: Entry, source: Source) -> Path:
        if isinstance(source, FolderSource):
            return source.path
        return self.root / entry.id / source.fingerprint

    def folders(self, entry: Entry, source: Source) -> Iterator[Path]:
        """Gives the places where the source's files may be, the entry's own first.

        An entry of the same files has a folder of the same fingerprint, so that a model
        which serves two capabilities under two ids is on the disk once.
        """
        yield self._folder(entry, source)
        if not isinstance(source, FolderSource):
            yield from sorted(self.root.glob(f"*/{source.fingerprint}"))

    def _is_there(self, source: Source, folder: Path) -> bool:
        if isinstance(source, FolderSource):
            return folder.is_dir() and all((folder / f.name).is_file() for f in source.files)
        manifest = Manifest.read(folder)
        return manifest is not None and manifest.holds(folder)

    def _fetch(self, entry: Entry, report: Report) -> Path:
        """Tries the sources in order."""
        first: WeightsError | None = None
        for source in entry.sources:
            try:
                return self._fetch_from(entry, source, report)
            except WeightsError as err:
                first = first or err
        raise first or WeightsError(f"{entry.id} has no sources", reason="NO_SOURCE")

    def _fetch_from(self, entry: Entry, source: Source, report: Report) -> Path:
        target = self._folder(entry, source)
        if isinstance(source, FolderSource):
            raise WeightsError(f"{target} lacks files of {entry.id}", reason="MISSING_FILE")
        meter = Meter(entry.id, _size(source), report)
        if isinstance(source, HubSource):
            hub = self._hub or HubOptions.from_environment()
            with disk_errors(self.root):
                return pull_from_hub(
                    source,
                    target,
                    meter,
                    root=self.root,
                    options=hub,
                    find=lambda: self._find_from(entry, source),
                )
        with disk_errors(self.root), staged(self.root) as folder:
            fetch(source, folder, meter)
            publish(folder, target, is_good=lambda: self._is_there(source, target))
        return target


def _size(source: Source) -> int:
    """Returns the bytes of the source's files; those of unknown size count as none."""
    return sum(file.size for file in source.files)
