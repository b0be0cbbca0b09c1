"""Edits by any OpenAI-compatible provider; see `atrium_diffusion.engines.openai`.

A provider makes a few sizes only: an upload is stretched to the one whose shape is
nearest, and the result is stretched back, so that every size of ours is served.
"""

import asyncio
import io
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing

import numpy as np
import openai
from numpy.typing import NDArray
from openai.types import ImagesResponse
from PIL import Image

from atrium_common.errors import InvalidArgument
from atrium_common.images import ResizeMode, Size, resize_mask, resize_picture
from atrium_diffusion.domain import (
    PictureEvent,
    PictureJob,
    PictureMade,
    Pixels,
    RequestPlan,
    Source,
)
from atrium_diffusion.engines.openai import OpenAIPictures
from atrium_img2img.domain import DEFAULT_STRENGTH


class OpenAIEngine(OpenAIPictures):
    """Passes uploads on to providers, each by itself, and their pictures back."""

    def plan(self, job: PictureJob) -> RequestPlan:
        """Refuses a strength, too: a provider decides itself how much it draws anew."""
        if job.strength != DEFAULT_STRENGTH:
            raise InvalidArgument(
                f"The model {job.model!r} does not support strength.",
                reason="UNSUPPORTED_PARAMETER",
                field="strength",
            )
        return super().plan(job)

    async def draw(self, plan: RequestPlan) -> AsyncGenerator[PictureEvent, None]:
        """Edits one upload after the other; closing it closes the connection."""
        for number, source in enumerate(plan.job.sources):
            async with aclosing(self._edit(plan.job, source)) as edited:
                index = number * plan.job.n
                async for pixels, seconds in edited:
                    yield PictureMade(index=index, pixels=pixels, seconds=seconds)
                    index += 1

    async def _edit(
        self, job: PictureJob, source: Source
    ) -> AsyncGenerator[tuple[Pixels, float], None]:
        options = self.options(job.model)
        size = _nearest(source, options.dimensions)
        image, mask = await asyncio.to_thread(_files, source, size)

        def ask(client: openai.AsyncOpenAI) -> Awaitable[ImagesResponse]:
            return client.images.edit(
                model=options.model or job.model,
                prompt=job.prompt,
                image=("image.png", image, "image/png"),
                mask=("mask.png", mask, "image/png") if mask else openai.omit,
                n=job.n,
                size=f"{size.width}x{size.height}",
                quality=options.quality or openai.omit,  # type: ignore[arg-type]
                response_format=options.response_format or openai.omit,
            )

        async with aclosing(self.answered(job.model, ask, job.n)) as answers:
            async for pixels, seconds in answers:
                yield await asyncio.to_thread(_put_back, pixels, source), seconds


def _nearest(source: Source, sizes: tuple[tuple[int, int], ...]) -> Size:
    """Returns the provider's size whose shape is nearest to the upload's."""
    height, width = source.pixels.shape[:2]
    return Size(*min(sizes, key=lambda size: abs(np.log(size[0] * height / (size[1] * width)))))


def _files(source: Source, size: Size) -> tuple[bytes, bytes]:
    """Encodes an upload as PNG and its mask as PNG with transparency; ``b""`` for no mask."""
    pixels = resize_picture(source.pixels, size, ResizeMode.STRETCH)
    image = _png(pixels)
    if source.mask is None:
        return image, b""
    mask = resize_mask(source.mask, size, ResizeMode.STRETCH)
    opacity = np.rint((1 - mask) * 255).astype(np.uint8)
    return image, _png(np.dstack((pixels, opacity)))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _put_back(pixels: Pixels, source: Source) -> Pixels:
    """Gives a result the upload's size, with the upload's own pixels where the mask is 0."""
    height, width = source.pixels.shape[:2]
    made = resize_picture(pixels, Size(width, height), ResizeMode.STRETCH)
    if source.mask is None:
        return made
    share = source.mask[..., np.newaxis]
    blended = np.rint(made * share + source.pixels * (1 - share))
    return blended.astype(np.uint8)
