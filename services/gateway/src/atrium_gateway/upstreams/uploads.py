"""Uploads as every service takes them: pieces of a file, then its size and digest."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import BinaryIO

from atrium.common.v1 import media_pb2
from atrium_common.chunks import CHUNK_BYTES


async def pieces(file: BinaryIO) -> AsyncIterator[media_pb2.MediaChunk | media_pb2.MediaEnd]:
    """Reads a file to its end, from where it stands; the last piece is the end."""
    digest, size = hashlib.sha256(), 0
    # A large upload lies on disk, and a disk may be slow: not on the event loop.
    while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
        digest.update(data)
        size += len(data)
        yield media_pb2.MediaChunk(data=data)
    yield media_pb2.MediaEnd(sha256=digest.digest(), size=size)
