"""Whether the disk has room, asked before the first byte. Every kind of fetch calls this."""

import shutil
from pathlib import Path

from atrium_common.weights.errors import WeightsError

_SPARE = 64 << 20
"""Bytes that a fetch leaves free on the disk."""


def require_space(needed: int, folder: Path) -> None:
    """Refuses what the disk of `folder` has no room for.

    Args:
        needed: Bytes that will be written; 0 where nothing is known of them.
        folder: Where they go; it, or a folder above it, exists.

    Raises:
        WeightsError: There is too little, in numbers; `reason` is ``NO_SPACE``.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > 0 and free < needed + _SPARE:
        raise WeightsError(
            f"{(needed + _SPARE) >> 20} MiB of disk are needed, {free >> 20} MiB are free "
            f"in {folder}",
            reason="NO_SPACE",
        )
