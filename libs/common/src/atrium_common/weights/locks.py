"""One process at a time fetches a model; the others wait and find it done.

`store.py` takes the lock around a download from the hub, and `inventory.py` before it deletes
what has arrived of one. The system lets go of it when its process dies, however that was.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def locked(root: Path, name: str, *, waits: Callable[[], None] | None) -> Iterator[bool]:
    """Holds the lock of this name in the folder of weights.

    Args:
        root: The folder of weights.
        name: What is locked: a fingerprint.
        waits: Called once before it waits for another process; ``None`` does not wait.

    Yields:
        False if another process has it and `waits` is ``None``; then nothing is held.
    """
    folder = root / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if waits is None:
            yield False
            return
        waits()
        lock.acquire()
    try:
        yield True
    finally:
        lock.release()
