"""Media in pieces: cutting for the wire, and receiving an upload into a bounded file.

Servicers and the gateway's upstreams use it; it takes and gives bytes, so it knows
nothing of protobuf (the messages are `atrium.common.v1.MediaChunk` and `MediaEnd`).
"""

import asyncio
import hashlib
import hmac
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from atrium_common.errors import InvalidArgument, MediaError, TooLarge, Unavailable

CHUNK_BYTES = 64 * 1024
"""Size of the pieces that we send."""

MAX_CHUNK_BYTES = 1024 * 1024
"""Largest piece that we take, well under gRPC's 4 MiB limit for a message."""

_WRITE_BYTES = 1024 * 1024
"""Bytes gathered before a trip to the disk, so that a chunk costs no thread switch."""


def split(data: bytes | memoryview | BinaryIO, *, size: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Cuts bytes, or a file from where it stands, into pieces of `size` bytes.

    The last piece may be shorter; nothing gives no piece. Reads a file block by block.
    """
    if not isinstance(data, bytes | memoryview):
        while piece := data.read(size):
            yield piece
        return
    view = memoryview(data)
    for start in range(0, len(view), size):
        yield bytes(view[start : start + size])


class UploadSpool:
    """Receives one upload into a temporary file, checked and bounded.

        async with UploadSpool(limit=1 << 30) as spool:
            await spool.write(chunk)  # for each chunk
            path = await spool.finish(sha256=end.sha256, size=end.size)
            ...  # the file lives until the block ends

    Disk work and hashing happen off the loop. The file is readable by this user alone.
    """

    def __init__(self, *, limit: int, folder: Path | None = None) -> None:
        """Prepares a spool; nothing is on disk before the block is entered.

        Args:
            limit: Most bytes that the upload may have.
            folder: Where the file goes; default is the system's folder for such files.
        """
        self._limit = limit
        self._folder = folder
        self._buffer = bytearray()
        self._hash = hashlib.sha256()
        self._size = 0
        self._descriptor = -1
        self._path = Path()
        self._disk: asyncio.Future[None] | None = None

    @property
    def size(self) -> int:
        """Bytes received so far."""
        return self._size

    async def __aenter__(self) -> Self:
        try:
            await self._off_loop(self._open)
        except BaseException:
            self._remove()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._remove()

    async def write(self, data: bytes) -> None:
        """Takes the next piece.

        Raises:
            InvalidArgument: The piece is over `MAX_CHUNK_BYTES`.
            TooLarge: The upload is over its limit.
            Unavailable: The disk does not take it.
        """
        if len(data) > MAX_CHUNK_BYTES:
            raise InvalidArgument(f"A chunk has at most {MAX_CHUNK_BYTES} bytes.", field="chunk")
        self._size += len(data)
        if self._size > self._limit:
            raise TooLarge(f"The upload has more than {self._limit} bytes.")
        self._buffer += data
        if len(self._buffer) >= _WRITE_BYTES:
            await self._off_loop(self._flush)

    async def finish(self, *, sha256: bytes, size: int) -> Path:
        """Checks the whole upload and returns the file that holds it.

        Args:
            sha256: Digest that the sender computed, 32 raw bytes.
            size: Bytes that the sender sent.

        Raises:
            MediaError: The upload is empty, was cut, or was changed on the way.
            Unavailable: The disk does not take it.
        """
        await self._off_loop(self._flush)
        if size != self._size:
            raise MediaError(
                f"The upload says {size} bytes, {self._size} arrived.",
                reason="UPLOAD_INCOMPLETE",
                field="end.size",
            )
        if not hmac.compare_digest(self._hash.digest(), sha256):
            raise MediaError(
                "The upload's SHA-256 does not match what arrived.",
                reason="UPLOAD_CORRUPT",
                field="end.sha256",
            )
        if not self._size:
            raise MediaError("The upload is empty.", reason="UPLOAD_EMPTY", field="chunk")
        return self._path

    def _remove(self) -> None:
        """Closes and deletes the file, at once or when the disk is done with it."""
        if self._disk is not None and not self._disk.done():
            self._disk.add_done_callback(lambda _: self._delete())  # the caller was cancelled
        else:
            self._delete()

    def _delete(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._path.unlink(missing_ok=True)

    def _open(self) -> None:
        self._descriptor, name = tempfile.mkstemp(prefix="atrium-upload-", dir=self._folder)
        self._path = Path(name)

    def _flush(self) -> None:
        self._hash.update(self._buffer)
        view = memoryview(self._buffer)
        while view:
            view = view[os.write(self._descriptor, view) :]
        view.release()
        self._buffer.clear()

    async def _off_loop(self, work: Callable[[], None]) -> None:
        """Runs disk work in a thread; it goes on to its end if the caller is cancelled."""
        self._disk = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            await asyncio.shield(self._disk)
        except OSError as err:
            raise Unavailable(
                f"No room for the upload: {err.strerror}.", reason="NO_SPACE"
            ) from err
