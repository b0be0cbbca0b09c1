"""One download from the hub from its lock to its place. `WeightStore` calls this.

What was cut stays in ``.partial`` for the next pull; a full disk leaves nothing there, since
what it holds is then what is in the way.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from atrium_common.catalogue import HubSource
from atrium_common.weights.errors import WeightsError, is_full
from atrium_common.weights.hub_options import HubOptions
from atrium_common.weights.manifest import Manifest
from atrium_common.weights.progress import Meter
from atrium_common.weights.staging import partial_folder, publish


def pull_from_hub(
    source: HubSource,
    target: Path,
    meter: Meter,
    *,
    root: Path,
    options: HubOptions,
    find: Callable[[], Path | None],
) -> Path:
    """Fetches the source's files to `target`, unless another process has done so.

    Args:
        source: Repository, commit and files.
        target: Where they go, whole or not at all.
        meter: Told of the bytes.
        root: The folder of weights.
        options: How the hub is reached.
        find: Returns where the files are, if they are there.

    Returns:
        Where they are.

    Raises:
        WeightsError: They can't be had.
        OSError: The disk does not take them.
    """
    try:
        from atrium_common.weights.hub import fetch_hub
        from atrium_common.weights.locks import locked
    except ModuleNotFoundError as err:
        raise WeightsError(
            f"{err.name} is not installed: pip install 'atrium-common[hub]'",
            reason="MISSING_TOOL",
        ) from err
    with locked(root, source.fingerprint, waits=meter.waiting):
        if (found := find()) is not None:
            return found
        desk = partial_folder(root, source.fingerprint)
        files = desk / "files"
        files.mkdir(parents=True, exist_ok=True)
        try:
            digests = fetch_hub(source, desk, meter, options=options)
            _only(files, digests)
            Manifest.write(files, digests)
        except OSError as err:
            if is_full(err):
                shutil.rmtree(desk, ignore_errors=True)
            raise
        publish(files, target, is_good=lambda: find() is not None)
        shutil.rmtree(desk, ignore_errors=True)
    return target


def _only(folder: Path, names: dict[str, str]) -> None:
    """Deletes what an earlier download of other files has left."""
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in names:
            path.unlink()
