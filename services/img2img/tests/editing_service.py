"""A running service that edits, and what its tests ask of it."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc.aio
import numpy as np
import pytest
from PIL import Image

from atrium.img2img.v1 import img2img_pb2 as pb
from atrium.img2img.v1.img2img_pb2_grpc import ImageEditServiceStub
from atrium_common.catalogue import AdapterEntry, Catalogue, ModelEntry
from atrium_common.chunks import split
from atrium_common.domain import Capability
from atrium_common.errors import AtriumError
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.testing import FakeAdmission, gateway_metadata, running_server
from atrium_diffusion.domain import Pixels
from atrium_diffusion.engines.base import PictureEngine
from atrium_diffusion.engines.fake import FakeEngine
from atrium_diffusion.router import PictureRouter
from atrium_diffusion.studio import Studio
from atrium_diffusion.testing.received import Received, received
from atrium_img2img.servicer import ImageEditServicer
from atrium_img2img.uploads import UploadLimits, Uploads

LORA = "fake-lora"
Requests = list[pb.EditImageRequest]
Metadata = tuple[tuple[str, str], ...]


def photo(width: int = 64, height: int = 64, *, seed: int = 3) -> Pixels:
    """Returns a picture of which no two regions are alike."""
    chance = np.random.default_rng(seed)
    coarse = chance.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)[:height, :width]


def png(pixels: np.ndarray) -> bytes:
    """Encodes a picture or a mask."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def upload(data: bytes, kind: str = "image") -> Requests:
    """Returns the messages of one upload."""
    end = {"sha256": hashlib.sha256(data).digest(), "size": len(data)}
    return [
        *(pb.EditImageRequest(**{f"{kind}_chunk": {"data": piece}}) for piece in split(data)),
        pb.EditImageRequest(**{f"{kind}_end": end}),
    ]


def config(**fields: object) -> pb.EditImageRequest:
    """Returns the first message; a prompt is given."""
    return pb.EditImageRequest(config=pb.EditConfig(**({"prompt": "at night"} | fields)))  # type: ignore[arg-type]


def asked(*images: bytes, mask: bytes | None = None, **fields: object) -> Requests:
    """Returns the messages of an edit; without images, of one that is given."""
    images = images or (png(photo()),)
    counted = {"image_count": len(images)} if len(images) > 1 else {}
    masked = {"has_mask": True} if mask is not None else {}
    return [
        config(**{**counted, **masked, **fields}),
        *(part for image in images for part in upload(image)),
        *(upload(mask, "mask") if mask is not None else ()),
    ]


@dataclass(frozen=True)
class Running:
    """The service under test."""

    channel: grpc.aio.Channel
    stub: ImageEditServiceStub
    engine: FakeEngine
    servicer: ImageEditServicer
    uploads: Uploads
    admission: FakeAdmission
    spool: Path

    def call(
        self, requests: Iterable[pb.EditImageRequest], metadata: Metadata | None = None
    ) -> grpc.aio.StreamStreamCall:
        """Starts an edit."""
        return self.stub.EditImage(iter(requests), metadata=metadata or gateway_metadata())

    async def send(self, requests: Iterable[pb.EditImageRequest]) -> Received:
        """Edits to the end."""
        return received([answer async for answer in self.call(requests)])

    async def edit(self, *images: bytes, mask: bytes | None = None, **fields: object) -> Received:
        """Edits to the end."""
        return await self.send(asked(*images, mask=mask, **fields))

    async def refusal(
        self, requests: Iterable[pb.EditImageRequest], metadata: Metadata | None = None
    ) -> AtriumError:
        """Returns what refuses an edit before any answer."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(self.call(requests, metadata)))
        return from_rpc_error(caught.value)

    async def idle(self) -> None:
        """Waits, a few seconds at most, until nothing is held."""
        async with asyncio.timeout(10):
            while not self.is_idle:  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.002)

    @property
    def is_idle(self) -> bool:
        """True if no seat, upload or picture is held or waited for."""
        seats = any(queue.running or queue.depth for queue in self.servicer.queues.values())
        spooled = any(self.spool.iterdir())
        held = self.uploads.held_pixels or getattr(self.engine, "running", 0)
        return not (seats or spooled or held)


def entry(
    identifier: str = "fake-edits", *, aliases: tuple[str, ...] = ("dall-e-2",), **options: object
) -> ModelEntry:
    """Returns a catalogue entry of the fake engine."""
    return ModelEntry(
        id=identifier,
        service="img2img",
        capabilities=(Capability.IMAGE_TO_IMAGE,),
        engine="fake",
        aliases=aliases,
        digest="ab" * 32,
        options=options,  # type: ignore[arg-type]
    )


def adapters(model: str = "fake-edits") -> tuple[AdapterEntry, ...]:
    """Returns an adapter of the model."""
    return (AdapterEntry(id=LORA, kind="lora", models=(model,), digest="c" * 64),)


Serve = Callable[..., AbstractAsyncContextManager[Running]]
"""Starts a service: `serve(entries=..., engine=..., limits=..., max_requests=...)`."""


@asynccontextmanager
async def serving(
    spool: Path,
    *,
    entries: Iterable[ModelEntry] = (),
    engine: PictureEngine | None = None,
    limits: UploadLimits | None = None,
    max_requests: int = 256,
) -> AsyncIterator[Running]:
    """Serves until the block ends; then nothing may be held."""
    models: Sequence[ModelEntry] = tuple(entries) or (entry(),)
    engine = engine or FakeEngine(models, adapters=adapters(models[0].id))
    router = PictureRouter({engine.name: engine}, {model.id: engine.name for model in models})
    uploads = Uploads(replace(limits or UploadLimits(), directory=spool))
    servicer = ImageEditServicer(
        router,
        Catalogue(models=tuple(models)),
        studio=Studio(router, max_requests=max_requests),
        uploads=uploads,
    )
    async with (
        FakeAdmission() as admission,
        running_server(servicer, router, admission=admission) as (channel, _),
    ):
        stub = ImageEditServiceStub(channel)
        running = Running(channel, stub, engine, servicer, uploads, admission, spool)  # type: ignore[arg-type]
        yield running
    assert running.is_idle
