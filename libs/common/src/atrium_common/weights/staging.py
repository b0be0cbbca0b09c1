"""Folders that appear whole or not at all. `WeightStore` fills and publishes them."""

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_STALE_SECONDS = 6 * 3600
"""Age without a change at which work under way belongs to a process that died."""


# Downloads are not named like finished folders, which are looked for by name in any folder.
PARTIAL_SUFFIX = ".part"


def partial_area(root: Path) -> Path:
    """Returns the folder of all downloads that can be gone on with."""
    return root / ".partial"


def partial_folder(root: Path, fingerprint: str) -> Path:
    """Returns where a download that can be gone on with is kept, whoever began it."""
    return partial_area(root) / f"{fingerprint}{PARTIAL_SUFFIX}"


def partial_bytes(root: Path, fingerprint: str) -> int:
    """Returns how much of a download has arrived; 0 if none was cut."""
    return size_under(partial_folder(root, fingerprint))


def size_under(folder: Path) -> int:
    """Sums the files under a folder that changes meanwhile; 0 if it is not there."""
    total = 0
    # Unlike rglob, walk passes over a folder that vanishes under it.
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(root, name).stat().st_size
    return total


@contextmanager
def staged(root: Path) -> Iterator[Path]:
    """Gives an empty folder on the disk of `root`; what is left in it at the end is deleted.

    Sweeps up after processes that died on the way.
    """
    area = root / ".staging"
    area.mkdir(parents=True, exist_ok=True)
    for other in area.iterdir():
        with suppress(FileNotFoundError):  # its owner has just finished
            if time.time() - other.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(other, ignore_errors=True)
    desk = area / uuid.uuid4().hex
    folder = desk / "files"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(desk, ignore_errors=True)


def publish(folder: Path, target: Path, *, is_good: Callable[[], bool]) -> None:
    """Moves a filled folder to its place.

    Args:
        folder: What `staged` gave.
        target: Its place, on the same disk.
        is_good: Tells whether what stands at `target` will do: then another process was
            faster, and its work stays. Anything else there is replaced.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(3):
        try:
            folder.rename(target)
        except OSError:
            if not target.exists():
                raise
            if is_good():
                return
            # Aside first: a folder is never half deleted under its own name.
            discarded = folder.parent / f"discarded-{uuid.uuid4().hex}"
            target.rename(discarded)
        else:
            return
    raise FileExistsError(f"{target} is being replaced by others all the time")
