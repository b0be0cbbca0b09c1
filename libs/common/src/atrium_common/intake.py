"""What the services that take files have in common: receiving, decoding, and holding them.

A servicer makes an `UploadReader` per call, and shares one `Decoders` and one `HeldPixels`
among all calls, so that neither the processor nor the memory is anyone's alone.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from atrium_common.chunks import UploadSpool
from atrium_common.context import RequestContext
from atrium_common.errors import (
    DeadlineExceeded,
    InvalidArgument,
    MediaError,
    Overloaded,
    TooLarge,
)
from atrium_common.work import WorkQueue

T = TypeVar("T")

_HELD_RETRY = timedelta(seconds=10)
_MAX_WAITING = 1024
"""Uploads that wait to be decoded; more than there are calls at once."""


@dataclass(frozen=True, slots=True)
class UploadChunk:
    """The next bytes of an upload; `kind` says which where a call brings several, else ``""``."""

    kind: str
    data: bytes


@dataclass(frozen=True, slots=True)
class UploadEnd:
    """The end of an upload: its kind, SHA-256 (32 raw bytes) and number of its bytes."""

    kind: str
    sha256: bytes
    size: int


UploadPart = UploadChunk | UploadEnd


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """An upload on disk: where, its SHA-256 in hex, its bytes."""

    path: Path
    digest: str
    size: int


class UploadReader:
    """Takes one upload after the other off a caller's stream.

    Refusals name the fields of the wire: ``chunk`` and ``end`` of an upload without a
    kind, ``image_chunk`` and ``image_end`` of one of the kind ``"image"``.
    """

    def __init__(
        self,
        parts: AsyncIterator[UploadPart],
        *,
        max_bytes: int,
        idle: timedelta,
        folder: Path | None = None,
    ) -> None:
        """Reads nothing yet.

        Args:
            parts: What the caller sends after the config.
            max_bytes: Of each upload.
            idle: How long the caller may send nothing.
            folder: Where uploads are spooled; ``None`` takes the system's.
        """
        self._parts = parts
        self._max_bytes = max_bytes
        self._idle = idle
        self._folder = folder

    @asynccontextmanager
    async def upload(self, kind: str = "", name: str = "the upload") -> AsyncIterator[UploadedFile]:
        """Receives one upload; its file lives until the block ends.

        Args:
            kind: That is expected.
            name: For refusals, e.g. ``"image 2"``.

        Raises:
            InvalidArgument: Another kind comes, or a chunk is too large.
            MediaError: It breaks off, is empty, too large, or not what its end says.
            DeadlineExceeded: The caller sends nothing for too long.
        """
        async with UploadSpool(limit=self._max_bytes, folder=self._folder) as spool:
            while (part := await self._next()) is not None:
                if part.kind != kind:
                    raise InvalidArgument(
                        f"Here {name} is expected, not a {part.kind}.", field=_field(part.kind)
                    )
                if isinstance(part, UploadChunk):
                    await _write(spool, part)
                else:
                    path = await spool.finish(sha256=part.sha256, size=part.size)
                    yield UploadedFile(path, part.sha256.hex(), part.size)
                    return
        raise MediaError(
            f"The caller broke off before {name} ended.",
            reason="UPLOAD_INCOMPLETE",
            field=_field(kind, "end"),
        )

    async def finish(self) -> None:
        """Waits for the half-close; `InvalidArgument` if something else comes."""
        if (part := await self._next()) is not None:
            what = f": a {part.kind}" if part.kind else ""
            raise InvalidArgument(f"More comes than was announced{what}.", field=_field(part.kind))

    async def _next(self) -> UploadPart | None:
        try:
            async with asyncio.timeout(self._idle.total_seconds()):
                return await anext(self._parts, None)
        except TimeoutError as error:
            raise DeadlineExceeded(
                "The caller sent nothing for too long.", reason="UPLOAD_IDLE"
            ) from error


class Decoders:
    """Decodes files in threads: few at once, in fair order across tenants.

    Attributes:
        queue: In front of them.
    """

    def __init__(self, at_once: int) -> None:
        """Starts nothing; `at_once` files are decoded at a time, each on a core."""
        self.queue = WorkQueue(slots=at_once, max_queue=_MAX_WAITING)

    async def run(self, work: Callable[[], T], *, cost: float, caller: RequestContext) -> T:
        """Runs `work` in a thread, in the caller's turn, which lasts until the thread is done.

        Args:
            work: What is to be done.
            cost: Of it, above 0; bytes of the file.
            caller: Who asks.

        Raises:
            DeadlineExceeded: The caller's deadline passes before its turn.
        """
        async with self.queue.enter(
            tenant=caller.tenant, weight=caller.weight, cost=cost, deadline=caller.deadline
        ):
            return await in_thread(work)


class HeldPixels:
    """Counts the decoded pixels that calls hold while they wait and work; bounds them."""

    def __init__(self, most: int) -> None:
        """Holds nothing yet; all calls together hold `most`, those of one tenant half of it."""
        self._most = most
        self._held: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Pixels that all calls hold now."""
        return self._held.total()

    @contextmanager
    def holding(self, tenant: str) -> Iterator[Callable[[int], None]]:
        """Yields what counts pixels as held until the block ends.

        Raises:
            Overloaded: From what is yielded: there is no room for so many more.
        """
        held = 0

        def hold(pixels: int) -> None:
            nonlocal held
            if self.total + pixels > self._most or self._held[tenant] + pixels > self._most // 2:
                raise Overloaded(
                    "The service holds as many uploads as it may.", retry_after=_HELD_RETRY
                )
            held += pixels
            self._held[tenant] += pixels

        try:
            yield hold
        finally:
            self._held[tenant] -= held
            if not self._held[tenant]:
                del self._held[tenant]


async def in_thread(work: Callable[[], T]) -> T:
    """Runs `work` in a thread; a caller who is cancelled waits until the thread is done."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    finally:
        await asyncio.wait({working})


async def _write(spool: UploadSpool, part: UploadChunk) -> None:
    try:
        await spool.write(part.data)
    except TooLarge as error:
        raise MediaError(error.message, field=_field(part.kind)) from error


def _field(kind: str, part: str = "chunk") -> str:
    return f"{kind}_{part}" if kind else part
