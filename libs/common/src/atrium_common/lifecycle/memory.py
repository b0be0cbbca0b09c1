"""How much memory a model takes, and how to give it back. `ModelHost` measures by these."""

import ctypes
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

from atrium_common.catalogue import FolderSource, ModelEntry

_STATM = Path("/proc/self/statm")
_RESIDENT = 1
"""Field of statm: resident pages."""

_M_ARENA_MAX = -8
"""glibc's number of the parameter (malloc.h)."""


def device_bytes(device: str = "cpu") -> int | None:
    """Returns what this process takes of a device now.

    Args:
        device: As torch names it: ``"cpu"`` is the process's resident memory, ``"cuda"`` or
            ``"cuda:1"`` what torch has allocated there.

    Returns:
        Bytes, or ``None`` where it can't be told: other libraries' memory on a GPU, a system
        without /proc.
    """
    if device != "cpu":
        torch = sys.modules.get("torch")
        if torch is None or not device.startswith("cuda"):
            return None
        return int(torch.cuda.memory_allocated(device))
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[_RESIDENT])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def expected_bytes(entry: ModelEntry) -> int:
    """Returns what a model needs by its entry: `memory_mib`, else the size of its files.

    0 if neither is known: it is then not counted before it was measured.
    """
    if entry.memory_mib is not None:
        return entry.memory_mib << 20
    for source in entry.sources[:1]:
        if isinstance(source, FolderSource) and not source.files:
            return sum(path.stat().st_size for path in source.path.rglob("*") if path.is_file())
        return sum(file.size for file in source.files)
    return 0


def limit_arenas(count: int = 2) -> None:
    """Has glibc allocate in few heaps; call it once, before a process has threads.

    By default each thread may get a heap of its own, eight to a core. Models that are loaded
    by ever new threads then leave pieces in all of them: Whisper base grew from 212 to 252 MiB
    by its second load and went on; with two heaps it stays where it was.
    """
    if (set_option := _glibc("mallopt")) is not None:
        set_option(_M_ARENA_MAX, count)


def release_memory() -> None:
    """Returns what an unloaded model leaves behind to its device. Blocks for some milliseconds.

    Models hold themselves in cycles, torch keeps freed blocks for itself, and glibc keeps
    freed pages: without these three steps an idle unload frees nothing that can be seen.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if (trim := _glibc("malloc_trim")) is not None:
        trim(0)


def _glibc(name: str) -> Callable[..., int] | None:
    """Returns a function of the C library, or ``None`` where it is another than glibc."""
    found: Callable[..., int] | None = None
    if sys.platform == "linux":
        found = getattr(ctypes.CDLL(None), name, None)
    return found
