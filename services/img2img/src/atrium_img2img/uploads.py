"""Receives the uploads of an edit: spooled, checked, decoded, resized, one after the other.

`servicer.py` calls this. An upload is decoded as soon as it ends, and only what is
resized is kept, so a request holds one upload on disk and one decoded picture at a time.
Few are decoded at once, in fair order across tenants, and what all requests hold together
is bounded, too.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
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
from atrium_common.images import (
    ImageLimits,
    Mask,
    Pixels,
    Size,
    SizeBounds,
    read_mask,
    read_picture,
    resize_mask,
    resize_picture,
    soften,
    target_size,
)
from atrium_common.work import WorkQueue
from atrium_diffusion.domain import Source
from atrium_img2img.domain import EditOrder, UploadChunk, UploadKind, UploadPart

T = TypeVar("T")

_HELD_RETRY = timedelta(seconds=10)
_MAX_WAITING = 1024
"""Uploads that wait to be decoded; more than there are calls at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadLimits:
    """What uploads are taken.

    Attributes:
        images: Of each upload.
        max_decoding: Uploads that are decoded at once.
        max_held_pixels: Resized pixels that all requests together may hold; those of one
            tenant hold at most half of it.
        idle: How long a caller may send nothing.
        directory: Where uploads are spooled; ``None`` takes the system's folder.
    """

    images: ImageLimits = field(default_factory=ImageLimits)
    max_decoding: int = 2
    max_held_pixels: int = 256_000_000
    idle: timedelta = timedelta(seconds=60)
    directory: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Scaled:
    """An upload at its size: the picture, what size it came in, its digest."""

    pixels: Pixels
    original: Size
    digest: str


@dataclass(frozen=True, slots=True)
class _File:
    """An upload on disk: where, its SHA-256 in hex, its bytes."""

    path: Path
    digest: str
    size: int


class Uploads:
    """Receives the uploads of a service's requests.

    Attributes:
        decoding: The queue in front of the decoders.
    """

    def __init__(self, limits: UploadLimits | None = None) -> None:
        """Starts nothing; `limits` bound each upload and all of them together."""
        self._limits = limits or UploadLimits()
        self.decoding = WorkQueue(slots=self._limits.max_decoding, max_queue=_MAX_WAITING)
        self._held: Counter[str] = Counter()

    @property
    def held_pixels(self) -> int:
        """Pixels that all requests hold now."""
        return self._held.total()

    @asynccontextmanager
    async def receive(
        self,
        parts: AsyncIterator[UploadPart],
        order: EditOrder,
        bounds: SizeBounds,
        caller: RequestContext,
    ) -> AsyncIterator[tuple[Source, ...]]:
        """Receives the pictures and the mask of an edit, up to the caller's half-close.

        Args:
            parts: What the caller sends after the config.
            order: What the config said.
            bounds: Sizes that the model takes.
            caller: Who sends it.

        Yields:
            The sources, in order; they count as held until the block ends.

        Raises:
            InvalidArgument: Parts come out of order, or a size is not taken.
            MediaError: An upload is broken, too large, or no picture that is taken; or the
                mask has another size than a picture.
            Overloaded: All requests together hold as much as they may.
            DeadlineExceeded: The caller sends nothing, or its deadline passes first.
        """
        reader = _PartReader(parts, self._limits)
        with self._holding(caller.tenant) as hold:
            scaled = []
            for number in range(order.uploads):
                async with reader.upload(UploadKind.IMAGE, number) as file:
                    work = partial(self._picture, file, order, bounds)
                    scaled.append(await self._decoded(work, file.size, caller))
                hold(scaled[-1].pixels)
            mask, mask_digest = None, ""
            if order.has_mask:
                size = _common_size(scaled)
                async with reader.upload(UploadKind.MASK, 0) as file:
                    work_on_mask = partial(self._mask, file, order, scaled[0], size)
                    mask = await self._decoded(work_on_mask, file.size, caller)
                    mask_digest = file.digest
                hold(mask)
            await reader.finish()
            yield tuple(
                Source(pixels=one.pixels, mask=mask, digest=one.digest, mask_digest=mask_digest)
                for one in scaled
            )

    def _picture(self, file: _File, order: EditOrder, bounds: SizeBounds) -> _Scaled:
        picture = read_picture(file.path, limits=self._limits.images, field="image_chunk")
        size = target_size(
            picture.size,
            mode=order.resize,
            bounds=bounds,
            width=order.width,
            height=order.height,
            field="image_chunk",
        )
        pixels = resize_picture(picture.opaque(), size, order.resize)
        return _Scaled(pixels, picture.size, file.digest)

    def _mask(self, file: _File, order: EditOrder, picture: _Scaled, size: Size) -> Mask:
        mask = read_mask(file.path, size=size, limits=self._limits.images, field="mask_chunk")
        height, width = picture.pixels.shape[:2]
        return soften(resize_mask(mask, Size(width, height), order.resize), order.mask_blur)

    async def _decoded(self, work: Callable[[], T], size: int, caller: RequestContext) -> T:
        """Decodes in a thread, in its turn, which lasts until the thread is done."""
        async with self.decoding.enter(
            tenant=caller.tenant,
            weight=caller.weight,
            cost=size,
            deadline=caller.deadline,
        ):
            decoding = asyncio.ensure_future(asyncio.to_thread(work))
            try:
                return await asyncio.shield(decoding)
            finally:
                await asyncio.wait({decoding})  # of a caller who left, too

    @contextmanager
    def _holding(self, tenant: str) -> Iterator[Callable[[Pixels | Mask], None]]:
        """Counts arrays as held until the block ends."""
        held, most = 0, self._limits.max_held_pixels

        def hold(array: Pixels | Mask) -> None:
            nonlocal held
            pixels = array.shape[0] * array.shape[1]
            if self.held_pixels + pixels > most or self._held[tenant] + pixels > most // 2:
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


def _common_size(scaled: list[_Scaled]) -> Size:
    """Returns the size of all uploads, which a mask has, too; `MediaError` if they differ."""
    sizes = {one.original for one in scaled}
    if len(sizes) > 1:
        raise MediaError(
            "A mask is for pictures of its own size; these have several.", field="mask_chunk"
        )
    return sizes.pop()


class _PartReader:
    """Takes one upload after the other off a caller's stream."""

    def __init__(self, parts: AsyncIterator[UploadPart], limits: UploadLimits) -> None:
        self._parts = parts
        self._limits = limits

    @asynccontextmanager
    async def upload(self, kind: UploadKind, number: int) -> AsyncIterator[_File]:
        """Receives one upload; its file lives until the block ends."""
        limits = self._limits
        async with UploadSpool(limit=limits.images.max_bytes, folder=limits.directory) as spool:
            while (part := await self._next()) is not None:
                if part.kind is not kind:
                    raise InvalidArgument(
                        f"Here {kind} {number} is expected, not a {part.kind}.",
                        field=f"{part.kind}_chunk",
                    )
                if isinstance(part, UploadChunk):
                    await self._write(spool, part)
                else:
                    path = await spool.finish(sha256=part.sha256, size=part.size)
                    yield _File(path, part.sha256.hex(), part.size)
                    return
        raise MediaError(
            f"The upload broke off before {kind} {number} ended.",
            reason="UPLOAD_INCOMPLETE",
            field=f"{kind}_end",
        )

    async def finish(self) -> None:
        """Waits for the half-close; `InvalidArgument` if something else comes."""
        if (part := await self._next()) is not None:
            raise InvalidArgument(
                f"More comes than the config announced: a {part.kind}.", field=f"{part.kind}_chunk"
            )

    async def _write(self, spool: UploadSpool, part: UploadChunk) -> None:
        try:
            await spool.write(part.data)
        except TooLarge as error:
            raise MediaError(error.message, field=f"{part.kind}_chunk") from error

    async def _next(self) -> UploadPart | None:
        try:
            async with asyncio.timeout(self._limits.idle.total_seconds()):
                return await anext(self._parts, None)
        except TimeoutError as error:
            raise DeadlineExceeded(
                "The caller sent nothing for too long.", reason="UPLOAD_IDLE"
            ) from error
