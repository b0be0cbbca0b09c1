"""Holds a copy of an answer while it is sent, in memory or, when it grows, in a file."""

import asyncio
from collections.abc import Iterator
from tempfile import TemporaryFile
from typing import IO

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
        self._pieces: list[bytes] = []
        self._file: IO[bytes] | None = None
        self.size = 0

    @property
    def over(self) -> bool:
        """Whether the answer has become too large to be kept."""
        return self.size > self._limit

    async def add(self, piece: bytes) -> None:
        """Takes the next piece."""
        self.size += len(piece)
        if self.over:
            self.close()
            return
        self._pieces.append(piece)
        if self.size > MEMORY_BYTES:
            await asyncio.to_thread(self._spill)

    def whole(self) -> bytes:
        """Gives the body of an answer that is in memory; nothing if it is over the limit."""
        return b"".join(self._pieces)

    def pieces(self) -> Iterator[bytes]:
        """Gives the body in pieces of `PIECE_BYTES`; nothing if it is over the limit.

        Blocks on the disk where the body is large: for a thread.
        """
        if self._file is None:
            if self._pieces:
                yield self.whole()
            return
        self._file.seek(0)
        while piece := self._file.read(PIECE_BYTES):
            yield piece

    def close(self) -> None:
        """Lets go of what is kept."""
        self._pieces.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _spill(self) -> None:
        """Moves what is in memory to the end of the file."""
        if self._file is None:
            # Open for as long as the answer is sent: `close` is called by the one who holds it.
            self._file = TemporaryFile()  # noqa: SIM115
        self._file.write(b"".join(self._pieces))
        self._pieces.clear()
