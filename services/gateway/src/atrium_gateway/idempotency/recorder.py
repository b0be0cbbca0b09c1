"""Holds a copy of an answer while it is sent, in memory or, when it grows, in a file."""

import asyncio
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile

MEMORY_BYTES = 256 << 10
PIECE_BYTES = 256 << 10
"""Answers are stored and read in pieces of this size."""


class Recorder:
    """The body of one answer.

    Args:
        limit: Bytes from which on nothing is kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Open for as long as the answer is sent: `close` is called by the one who holds it.
        self._file: SpooledTemporaryFile[bytes] | None = SpooledTemporaryFile(  # noqa: SIM115
            MEMORY_BYTES
        )
        self.size = 0

    @property
    def over(self) -> bool:
        """Whether the answer has become too large to be kept."""
        return self.size > self._limit

    async def add(self, piece: bytes) -> None:
        """Takes the next piece."""
        self.size += len(piece)
        if self._file is None:
            return
        if self.over:
            self.close()
        elif self.size > MEMORY_BYTES:
            await asyncio.to_thread(self._file.write, piece)
        else:
            self._file.write(piece)

    def pieces(self) -> Iterator[bytes]:
        """Gives the body in pieces of `PIECE_BYTES`; nothing if it is over the limit.

        Blocks on the disk where the body is large: for a thread.
        """
        if self._file is None:
            return
        self._file.seek(0)
        while piece := self._file.read(PIECE_BYTES):
            yield piece

    def close(self) -> None:
        """Lets go of what is kept."""
        if self._file is not None:
            self._file.close()
            self._file = None
