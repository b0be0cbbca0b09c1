"""The ledger's spool: an append-only file that many requests fsync together.

`ledger.py` appends lines and awaits them; the writer reads the committed part. One thread
writes, so that the event loop never waits for the disk.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import structlog

from atrium_common.errors import Unavailable

_log = structlog.get_logger(__name__)

_SUFFIX = ".spool"
_COMMIT_SECONDS = 0.008
"""Shortest time between two commits under load: more requests share an fsync."""
_LAZY_SECONDS = 0.02
"""Longest time that a line which nobody awaits stays in memory."""
_RETRY_SECONDS = 0.5


class Position(NamedTuple):
    """A place in the spool: number of a segment file and an offset in it."""

    segment: int
    offset: int


def segment_path(folder: Path, number: int) -> Path:
    """File of one segment."""
    return folder / f"{number:010d}{_SUFFIX}"


def segments(folder: Path) -> list[int]:
    """Numbers of the segments that exist, oldest first."""
    return sorted(int(file.stem) for file in folder.glob(f"*{_SUFFIX}") if file.stem.isdigit())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # the writer was done with it just now
        return 0


class Spool:
    """Appends lines to numbered segment files; an existing file is never written again.

    Args:
        folder: Folder of the segments; made if missing.
        segment_bytes: A segment this large is followed by a new one.
        carry: Returns the lines that a new segment starts with, so that older ones
            can be deleted.
        sync: Makes a file's data durable.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int,
        carry: Callable[[], Iterable[bytes]],
        sync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._carry = carry
        self._sync = sync
        existing = segments(folder)
        self.committed = self._end(existing[-1]) if existing else Position(0, 0)
        """Everything before it is on disk."""
        self.failing = False
        """Whether the last commit failed."""
        self._file = -1
        self._rotate = True
        self._lines: list[bytes] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._committing = False
        self._timer: asyncio.TimerHandle | None = None
        self._last_start = 0.0
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")

    def size(self) -> int:
        """Bytes of its files on disk; may be asked in any thread."""
        sizes = (_size(segment_path(self.folder, number)) for number in segments(self.folder))
        return sum(sizes)

    def append(self, line: bytes) -> None:
        """Queues a line that nobody awaits; on disk within milliseconds."""
        self._lines.append(line)
        if self._timer is None and not self._committing:
            self._timer = self._loop.call_later(_LAZY_SECONDS, self._commit)

    def append_durably(self, line: bytes) -> asyncio.Future[None]:
        """Queues a line at once.

        Returns:
            A future that is done when the line is on disk. It fails with `Unavailable`
            if the disk refused; the line stays queued and is tried again.
        """
        self._lines.append(line)
        return self._waiter()

    async def sync(self) -> None:
        """Returns when everything appended so far is on disk.

        Raises:
            Unavailable: The disk refused.
        """
        if self._lines or self._committing:
            await self._waiter()

    async def close(self) -> None:
        """Writes what is queued and closes the file.

        Raises:
            Unavailable: The disk refused; what was queued is lost with this process.
        """
        try:
            await self.sync()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._thread.shutdown(wait=True)
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _end(self, number: int) -> Position:
        return Position(number, segment_path(self.folder, number).stat().st_size)

    def _waiter(self) -> asyncio.Future[None]:
        future = self._loop.create_future()
        self._waiters.append(future)
        if len(self._waiters) == 1 and not self._committing and not self.failing:
            self._schedule()
        return future

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wait = self._last_start + _COMMIT_SECONDS - self._loop.time()
        self._timer = self._loop.call_later(max(wait, 0), self._commit)

    def _commit(self) -> None:
        """Hands everything queued to the thread as one write and one fsync."""
        self._timer = None
        self._committing = True
        self._last_start = self._loop.time()
        lines, self._lines = self._lines, []
        waiters, self._waiters = self._waiters, []
        rotate = self._rotate or self.committed.offset >= self._segment_bytes
        carried = list(self._carry()) if rotate else []
        job = self._loop.run_in_executor(
            self._thread, self._write, b"".join([*carried, *lines]), rotate
        )
        job.add_done_callback(lambda done: self._finish(done, lines, waiters))

    def _write(self, data: bytes, rotate: bool) -> Position:
        """Runs in the thread."""
        segment, offset = self.committed
        if rotate:
            segment, offset = segment + 1, 0
            self._open_segment(segment)
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        self._sync(self._file)
        return Position(segment, offset + len(data))

    def _open_segment(self, number: int) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        # A segment that a failed commit left behind holds nothing that counts yet.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC
        self._file = os.open(segment_path(self.folder, number), flags, 0o600)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _finish(
        self,
        done: asyncio.Future[Position],
        lines: Sequence[bytes],
        waiters: Sequence[asyncio.Future[None]],
    ) -> None:
        self._committing = False
        error = done.exception()
        if error is None:
            self.committed = done.result()
            self._rotate = self.failing = False
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        else:
            self._failed(error, lines, waiters)
        if self._waiters and not self.failing:
            self._schedule()
        elif self._lines:
            wait = _RETRY_SECONDS if self.failing else _LAZY_SECONDS
            self._timer = self._loop.call_later(wait, self._commit)

    def _failed(
        self,
        error: BaseException,
        lines: Sequence[bytes],
        waiters: Sequence[asyncio.Future[None]],
    ) -> None:
        """Keeps the lines for a new segment: after a failed fsync the old one is not trusted."""
        _log.error("spool_failed", error=str(error), lines=len(lines))
        self.failing = True
        self._rotate = True
        self._lines[:0] = lines
        for waiter in [*waiters, *self._waiters]:
            if not waiter.done():
                waiter.set_exception(
                    Unavailable("Usage can't be recorded now.", retry_after=timedelta(seconds=2))
                )
        self._waiters.clear()
