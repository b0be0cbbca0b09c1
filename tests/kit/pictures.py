"""Pictures as callers get them: asked for over gRPC, put together, decoded and compared."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrium.common.v1 import media_pb2, usage_pb2
from atrium.img2img.v1 import img2img_pb2, img2img_pb2_grpc
from atrium.text2image.v1 import text2image_pb2, text2image_pb2_grpc

Pixels = NDArray[np.uint8]
"""Shape (height, width, 3)."""
_CHUNK = 64 * 1024


def pixels(file: bytes) -> Pixels:
    """A picture file's pixels."""
    with Image.open(io.BytesIO(file)) as picture:
        return np.array(picture.convert("RGB"))


def png(picture: Image.Image | Pixels) -> bytes:
    """A PNG file."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def most_levels_apart(one: Pixels, other: Pixels) -> int:
    """The largest difference of any two values, 0 to 255; sizes must be equal."""
    return int(np.abs(one.astype(np.int16) - other.astype(np.int16)).max())


@dataclass
class Drawn:
    """What a request over gRPC brought.

    Attributes:
        info: The first message.
        kinds: Of all messages that bring something, in order.
        files: The pictures, by index; each agrees with its digest.
        usage: The last that was told.
    """

    info: Any = None
    kinds: list[str] = field(default_factory=list)
    files: dict[int, bytes] = field(default_factory=dict)
    usage: usage_pb2.Usage = field(default_factory=usage_pb2.Usage)


OnStep = Callable[[int], None]
"""Called with the number of steps taken."""


async def generate(
    channel: grpc.aio.Channel,
    key: str,
    request: text2image_pb2.GenerateImageRequest,
    *,
    on_info: Callable[[], None] = lambda: None,
    on_step: OnStep = lambda _: None,
) -> Drawn:
    """Draws; tells of admission and of each step as it comes."""
    stub = text2image_pb2_grpc.TextToImageServiceStub(channel)
    call = stub.GenerateImage(request, metadata=(("authorization", f"Bearer {key}"),))
    return await _collected(call, on_info, on_step)


async def edit(
    channel: grpc.aio.Channel,
    key: str,
    config: img2img_pb2.EditConfig,
    pictures: Sequence[bytes],
    *,
    mask: bytes | None = None,
) -> Drawn:
    """Edits files."""
    stub = img2img_pb2_grpc.ImageEditServiceStub(channel)
    steps = _upload(config, pictures, mask)
    call = stub.EditImage(steps, metadata=(("authorization", f"Bearer {key}"),))
    return await _collected(call, lambda: None, lambda _: None)


def _upload(
    config: img2img_pb2.EditConfig, pictures: Sequence[bytes], mask: bytes | None
) -> Iterator[img2img_pb2.EditImageRequest]:
    yield img2img_pb2.EditImageRequest(config=config)
    for data in pictures:
        for chunk in _chunks(data):
            yield img2img_pb2.EditImageRequest(image_chunk=chunk)
        yield img2img_pb2.EditImageRequest(image_end=_end(data))
    if mask is not None:
        for chunk in _chunks(mask):
            yield img2img_pb2.EditImageRequest(mask_chunk=chunk)
        yield img2img_pb2.EditImageRequest(mask_end=_end(mask))


def _chunks(data: bytes) -> Iterator[media_pb2.MediaChunk]:
    for start in range(0, len(data), _CHUNK):
        yield media_pb2.MediaChunk(data=data[start : start + _CHUNK])


def _end(data: bytes) -> media_pb2.MediaEnd:
    return media_pb2.MediaEnd(sha256=hashlib.sha256(data).digest(), size=len(data))


async def _collected(call: Any, on_info: Callable[[], None], on_step: OnStep) -> Drawn:
    drawn, parts = Drawn(), bytearray()
    async for message in call:
        kind = message.WhichOneof("step")
        drawn.usage = message.usage
        drawn.kinds += [kind] if kind else []
        match kind:
            case "info":
                drawn.info = message.info
                on_info()
            case "progress":
                on_step(message.progress.step)
            case "start":
                parts.clear()
            case "chunk":
                parts += message.chunk.chunk.data
            case "end":
                if hashlib.sha256(parts).digest() != message.end.end.sha256:
                    raise RuntimeError("a picture does not agree with its digest")
                drawn.files[message.end.index] = bytes(parts)
    return drawn
