"""The promises of `chunks`: cut and joined is the same, and an upload is whole or refused."""

import asyncio
import hashlib
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrium_common.chunks import CHUNK_BYTES, MAX_CHUNK_BYTES, UploadSpool, split
from atrium_common.errors import AtriumError, InvalidArgument, MediaError, TooLarge, Unavailable


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@given(data=st.binary(max_size=300), size=st.integers(1, 64))
def test_pieces_join_to_the_whole(data: bytes, size: int) -> None:
    for source in (data, memoryview(data), io.BytesIO(data)):
        pieces = list(split(source, size=size))
        assert b"".join(pieces) == data
        assert all(len(piece) == size for piece in pieces[:-1])
        assert all(pieces)


def test_pieces_are_64_kib() -> None:
    assert [len(piece) for piece in split(bytes(150_000))] == [CHUNK_BYTES, CHUNK_BYTES, 18928]


async def test_an_upload_is_received_and_gone_afterwards(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    async with UploadSpool(limit=len(data), folder=tmp_path) as spool:
        for piece in split(data):
            await spool.write(piece)
        path = await spool.finish(sha256=hashlib.sha256(data).digest(), size=len(data))
        assert path.read_bytes() == data
        assert path.stat().st_mode & 0o077 == 0
        assert spool.size == len(data)
    assert files_in(tmp_path) == []


async def test_the_limit_is_exact(tmp_path: Path) -> None:
    async with UploadSpool(limit=10, folder=tmp_path) as spool:
        await spool.write(bytes(10))
        with pytest.raises(TooLarge):
            await spool.write(b"!")
    assert files_in(tmp_path) == []


async def test_an_oversized_chunk_is_refused(tmp_path: Path) -> None:
    async with UploadSpool(limit=1 << 30, folder=tmp_path) as spool:
        await spool.write(bytes(MAX_CHUNK_BYTES))
        with pytest.raises(InvalidArgument):
            await spool.write(bytes(MAX_CHUNK_BYTES + 1))


@pytest.mark.parametrize(
    ("data", "claimed", "digest", "reason"),
    [
        (b"audio", 6, hashlib.sha256(b"audio").digest(), "UPLOAD_INCOMPLETE"),
        (b"audio", 5, hashlib.sha256(b"audit").digest(), "UPLOAD_CORRUPT"),
        (b"audio", 5, b"", "UPLOAD_CORRUPT"),
        (b"", 0, hashlib.sha256(b"").digest(), "UPLOAD_EMPTY"),
    ],
)
async def test_what_is_not_whole_is_refused(
    tmp_path: Path, data: bytes, claimed: int, digest: bytes, reason: str
) -> None:
    async with UploadSpool(limit=100, folder=tmp_path) as spool:
        await spool.write(data)
        with pytest.raises(MediaError) as refusal:
            await spool.finish(sha256=digest, size=claimed)
    assert refusal.value.reason == reason


async def test_a_full_disk_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    async with UploadSpool(limit=100, folder=tmp_path) as spool:
        await spool.write(b"audio")
        monkeypatch.setattr("atrium_common.chunks.os.write", full)
        with pytest.raises(Unavailable, match="No space left"):
            await spool.finish(sha256=b"", size=5)
    assert files_in(tmp_path) == []


async def test_an_error_or_a_cancellation_leaves_no_file(tmp_path: Path) -> None:
    async def upload(turns: int) -> None:
        async with UploadSpool(limit=1 << 30, folder=tmp_path) as spool:
            for _ in range(turns):
                await spool.write(bytes(600_000))
            raise AtriumError("the caller sent nonsense")

    for turns in range(20):
        task = asyncio.create_task(upload(turns))
        await asyncio.sleep(0.0005 * turns)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0.1)  # the disk may still be at work for one that was cancelled
    assert files_in(tmp_path) == []
