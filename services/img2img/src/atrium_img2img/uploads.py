"""Receives the uploads of an edit: spooled, checked, decoded, resized, one after the other.

`servicer.py` calls this. An upload is decoded as soon as it ends, and only what is
resized is kept, so a request holds one upload on disk and one decoded picture at a time.
Few are decoded at once, in fair order across tenants, and what all requests hold together
is bounded, too.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

from atrium_common.context import RequestContext
from atrium_common.errors import MediaError
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
    size_of,
    soften,
    target_size,
)
from atrium_common.intake import Decoders, HeldPixels, UploadedFile, UploadPart, UploadReader
from atrium_common.work import WorkQueue
from atrium_diffusion.domain import Source
from atrium_img2img.domain import EditOrder, UploadKind


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


class Uploads:
    """Receives the uploads of a service's requests."""

    def __init__(self, limits: UploadLimits | None = None) -> None:
        """Starts nothing; `limits` bound each upload and all of them together."""
        self._limits = limits or UploadLimits()
        self._decoders = Decoders(self._limits.max_decoding)
        self._held = HeldPixels(self._limits.max_held_pixels)

    @property
    def decoding(self) -> WorkQueue:
        """The queue in front of the decoders."""
        return self._decoders.queue

    @property
    def held_pixels(self) -> int:
        """Pixels that all requests hold now."""
        return self._held.total

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
        reader = UploadReader(
            parts,
            max_bytes=self._limits.images.max_bytes,
            idle=self._limits.idle,
            folder=self._limits.directory,
        )
        with self._held.holding(caller.tenant) as hold:
            scaled = []
            for number in range(order.uploads):
                async with reader.upload(UploadKind.IMAGE, f"image {number}") as file:
                    work = partial(self._picture, file, order, bounds)
                    scaled.append(await self._decoders.run(work, cost=file.size, caller=caller))
                hold(size_of(scaled[-1].pixels).pixels)
            mask, mask_digest = None, ""
            if order.has_mask:
                size = _common_size(scaled)
                async with reader.upload(UploadKind.MASK, "the mask") as file:
                    shade = partial(self._mask, file, order, scaled[0], size)
                    mask = await self._decoders.run(shade, cost=file.size, caller=caller)
                    mask_digest = file.digest
                hold(size_of(mask).pixels)
            await reader.finish()
            yield tuple(
                Source(pixels=one.pixels, mask=mask, digest=one.digest, mask_digest=mask_digest)
                for one in scaled
            )

    def _picture(self, file: UploadedFile, order: EditOrder, bounds: SizeBounds) -> _Scaled:
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

    def _mask(self, file: UploadedFile, order: EditOrder, picture: _Scaled, size: Size) -> Mask:
        mask = read_mask(file.path, size=size, limits=self._limits.images, field="mask_chunk")
        return soften(resize_mask(mask, size_of(picture.pixels), order.resize), order.mask_blur)


def _common_size(scaled: list[_Scaled]) -> Size:
    """Returns the size of all uploads, which a mask has, too; `MediaError` if they differ."""
    sizes = {one.original for one in scaled}
    if len(sizes) > 1:
        raise MediaError(
            "A mask is for pictures of its own size; these have several.", field="mask_chunk"
        )
    return sizes.pop()
