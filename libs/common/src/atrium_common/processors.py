"""How many processors this process may keep busy; engines that choose their own threads ask.

`os.sched_getaffinity` alone knows nothing of a container's limit: on a machine of 64 cores a
container with `cpus: 4` would run 64 threads, which stop each other for most of each 100 ms.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")
_GROUPS = Path("proc/self/cgroup")
_TREE = Path("sys/fs/cgroup")


def processors(root: Path = _ROOT) -> int:
    """Processors by affinity and by the quotas of control groups, 1 or more.

    A part of a processor counts as one. What can't be read limits nothing.

    Args:
        root: Where `/proc` and `/sys` are.
    """
    quotas = [math.ceil(quota) for quota in _quotas(root)]
    return max(1, min([len(os.sched_getaffinity(0)), *quotas]))


def _quotas(root: Path) -> Iterator[float]:
    try:
        lines = (root / _GROUPS).read_text().splitlines()
    except OSError:
        return
    for line in lines:
        # hierarchy:controllers:path; version 2 has one line, with neither of the first two.
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _of_version_2(root / _TREE, path)
        elif "cpu" in controllers.split(","):
            yield from _of_version_1(root / _TREE / "cpu", path)


def _upwards(tree: Path, path: str) -> Iterator[Path]:
    """The group's folder and those above it; without a view of the host, the tree alone."""
    folder = tree / path.strip("/")
    while folder != tree and tree in folder.parents:
        yield folder
        folder = folder.parent
    yield tree


def _of_version_2(tree: Path, path: str) -> Iterator[float]:
    for folder in _upwards(tree, path):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)


def _of_version_1(tree: Path, path: str) -> Iterator[float]:
    for folder in _upwards(tree, path):
        quota, period = (_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
