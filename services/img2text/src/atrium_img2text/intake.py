"""Receives the upload of a call and opens it: as a picture to look at, or as a document to read.

`servicer.py` calls this. What all calls decode at once is bounded by the opener, what they
hold while they wait and work by `held`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from atrium_common.context import RequestContext
from atrium_common.images import Pixels, size_of
from atrium_common.intake import HeldPixels, UploadPart, UploadReader
from atrium_img2text.documents import Document, DocumentLimits, DocumentOpener


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeLimits:
    """What uploads are taken.

    Attributes:
        documents: Of each upload.
        max_held_pixels: Decoded pixels that all requests together may hold; those of one
            tenant hold at most half of it.
        idle: How long a caller may send nothing.
        directory: Where uploads are spooled; ``None`` takes the system's folder.
    """

    documents: DocumentLimits = field(default_factory=DocumentLimits)
    max_held_pixels: int = 512_000_000
    idle: timedelta = timedelta(seconds=60)
    directory: Path | None = None


class Intake:
    """Takes the uploads of the service's requests.

    Attributes:
        limits: What is taken.
        opener: Opens them.
        held: Counts what requests hold.
    """

    def __init__(self, limits: IntakeLimits | None = None) -> None:
        """Starts nothing; `limits` bound each upload and all of them together."""
        self.limits = limits or IntakeLimits()
        self.opener = DocumentOpener(self.limits.documents)
        self.held = HeldPixels(self.limits.max_held_pixels)

    @asynccontextmanager
    async def picture(
        self, parts: AsyncIterator[UploadPart], caller: RequestContext
    ) -> AsyncIterator[Pixels]:
        """Receives a picture, up to the caller's half-close.

        Args:
            parts: What the caller sends after the config.
            caller: Who sends it.

        Yields:
            Its pixels, upright; they count as held until the block ends.

        Raises:
            InvalidArgument: Parts come out of order.
            MediaError: The upload is broken, too large, or no picture that is taken.
            Overloaded: All requests together hold as much as they may.
            DeadlineExceeded: The caller sends nothing, or its deadline passes first.
        """
        async with (
            self._received(parts) as path,
            self.opener.open(path, pdf=False, caller=caller) as document,
        ):
            picture = await document.first_picture()
        with self.held.holding(caller.tenant) as hold:
            hold(size_of(picture.pixels).pixels)
            yield picture.pixels

    @asynccontextmanager
    async def document(
        self, parts: AsyncIterator[UploadPart], caller: RequestContext
    ) -> AsyncIterator[Document]:
        """Receives a picture or a document; it is open until the block ends.

        Raises as `picture` does; `Document` says what its pages can.
        """
        async with (
            self._received(parts) as path,
            self.opener.open(path, caller=caller) as document,
        ):
            yield document

    @asynccontextmanager
    async def _received(self, parts: AsyncIterator[UploadPart]) -> AsyncIterator[Path]:
        limits = self.limits
        reader = UploadReader(
            parts,
            max_bytes=limits.documents.images.max_bytes,
            idle=limits.idle,
            folder=limits.directory,
        )
        async with reader.upload() as file:
            await reader.finish()
            yield file.path
