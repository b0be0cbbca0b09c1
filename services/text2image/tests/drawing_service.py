"""A running service that draws, and what its tests ask of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio
import pytest

from atrium.text2image.v1 import text2image_pb2 as pb
from atrium.text2image.v1.text2image_pb2_grpc import TextToImageServiceStub
from atrium_common.catalogue import AdapterEntry, Catalogue, ModelEntry
from atrium_common.domain import Capability
from atrium_common.errors import AtriumError
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.testing import FakeAdmission, gateway_metadata, running_server
from atrium_diffusion.engines.base import PictureEngine
from atrium_diffusion.engines.fake import FakeEngine
from atrium_diffusion.finishing import Finisher
from atrium_diffusion.router import PictureRouter
from atrium_diffusion.studio import Studio
from atrium_diffusion.testing.received import Received, received
from atrium_text2image.servicer import TextToImageServicer

LORA = "fake-lora"


@dataclass(frozen=True)
class Running:
    """The service under test."""

    channel: grpc.aio.Channel
    stub: TextToImageServiceStub
    engine: FakeEngine
    servicer: TextToImageServicer
    admission: FakeAdmission

    def call(self, **metadata: str) -> Callable[..., grpc.aio.UnaryStreamCall]:
        """Returns what starts a request of the fields that it is given."""

        def start(**fields: object) -> grpc.aio.UnaryStreamCall:
            return self.stub.GenerateImage(asked(**fields), metadata=gateway_metadata(**metadata))

        return start

    async def draw(self, **fields: object) -> Received:
        """Draws to the end."""
        return received([answer async for answer in self.call()(**fields)])

    async def refusal(self, **fields: object) -> AtriumError:
        """Returns what refuses a request before any answer."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(self.call()(**fields)))
        return from_rpc_error(caught.value)

    async def idle(self) -> None:
        """Waits, a few seconds at most, until nothing is held."""
        async with asyncio.timeout(10):
            while not is_idle(self.servicer, self.engine):  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.002)


def asked(**fields: object) -> pb.GenerateImageRequest:
    """Returns a request; a prompt is given."""
    return pb.GenerateImageRequest(**({"prompt": "a red circle"} | fields))  # type: ignore[arg-type]


def entry(
    identifier: str = "fake-pictures",
    *,
    aliases: tuple[str, ...] = ("dall-e-3",),
    **options: object,
) -> ModelEntry:
    """Returns a catalogue entry of the fake engine."""
    return ModelEntry(
        id=identifier,
        service="text2image",
        capabilities=(Capability.TEXT_TO_IMAGE,),
        engine="fake",
        aliases=aliases,
        digest="ab" * 32,
        options=options,  # type: ignore[arg-type]
    )


def adapters(model: str = "fake-pictures") -> tuple[AdapterEntry, ...]:
    """Returns two adapters of the model."""
    return tuple(
        AdapterEntry(id=identifier, kind="lora", models=(model,), digest=digit * 64)
        for identifier, digit in ((LORA, "c"), ("other-lora", "d"))
    )


def is_idle(servicer: TextToImageServicer, engine: PictureEngine) -> bool:
    """True if no seat is held or waited for, and nothing is drawn."""
    waiting = any(queue.running or queue.depth for queue in servicer.queues.values())
    return not waiting and not getattr(engine, "running", 0)


@asynccontextmanager
async def serving(
    *,
    entries: Iterable[ModelEntry] = (),
    engine: PictureEngine | None = None,
    finisher: Finisher | None = None,
    max_requests: int = 256,
    max_queue: int = 64,
) -> AsyncIterator[Running]:
    """Serves until the block ends; then nothing may be held."""
    models: Sequence[ModelEntry] = tuple(entries) or (entry(),)
    engine = engine or FakeEngine(models, adapters=adapters(models[0].id))
    router = PictureRouter({engine.name: engine}, {model.id: engine.name for model in models})
    studio = Studio(router, finisher=finisher, max_requests=max_requests, max_queue=max_queue)
    servicer = TextToImageServicer(router, Catalogue(models=tuple(models)), studio=studio)
    async with (
        FakeAdmission() as admission,
        running_server(servicer, router, admission=admission) as (channel, _),
    ):
        stub = TextToImageServiceStub(channel)
        yield Running(channel, stub, engine, servicer, admission)  # type: ignore[arg-type]
    assert is_idle(servicer, engine)
