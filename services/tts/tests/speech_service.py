"""A running speech service with the fake engine, and what its tests ask of it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import pytest

from atrium.tts.v1 import tts_pb2 as pb
from atrium.tts.v1.tts_pb2_grpc import SpeechSynthesisServiceStub
from atrium_common.catalogue import Catalogue, ModelEntry
from atrium_common.chunks import split
from atrium_common.domain import Capability
from atrium_common.errors import AtriumError
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.testing import FakeAdmission, gateway_metadata, running_server
from atrium_tts.engines.base import SpeechEngine
from atrium_tts.engines.fake import FakeEngine
from atrium_tts.engines.router import EngineRouter
from atrium_tts.servicer import SpeechServicer
from atrium_tts.speech import Speaker
from atrium_tts.voices import VoiceStore


@dataclass(frozen=True)
class Running:
    """The service under test."""

    channel: grpc.aio.Channel
    stub: SpeechSynthesisServiceStub
    engine: FakeEngine
    servicer: SpeechServicer
    admission: FakeAdmission
    voices: Path

    def call(self, **metadata: str) -> Callable[..., grpc.aio.UnaryStreamCall]:
        """Returns what starts a speech of the fields that it is given."""

        def start(**fields: object) -> grpc.aio.UnaryStreamCall:
            request = pb.SynthesizeSpeechRequest(**fields)  # type: ignore[arg-type]
            return self.stub.SynthesizeSpeech(request, metadata=gateway_metadata(**metadata))

        return start

    async def speak(self, **fields: object) -> list[pb.SynthesizeSpeechResponse]:
        """Speaks to the end."""
        return [answer async for answer in self.call()(**fields)]

    async def refusal(self, **fields: object) -> AtriumError:
        """Returns what refuses a speech before any answer."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(self.call()(**fields)))
        return from_rpc_error(caught.value)

    async def create(
        self, requests: Iterable[pb.CreateVoiceRequest], *, tenant: str = "acme"
    ) -> pb.CreateVoiceResponse:
        """Makes a voice."""
        metadata = gateway_metadata(tenant=tenant)
        return await self.stub.CreateVoice(iter(requests), metadata=metadata)

    async def idle(self) -> None:
        """Waits, a few seconds at most, until no seat, turn or utterance is held."""
        async with asyncio.timeout(5):
            while not self.is_idle:  # noqa: ASYNC110 - queues have no event for it
                await asyncio.sleep(0.002)

    @property
    def is_idle(self) -> bool:
        """True if no seat, turn or utterance is held."""
        return not self.engine.streams and servicer_is_idle(self.servicer)


def upload(data: bytes, **config: object) -> list[pb.CreateVoiceRequest]:
    """Returns the messages of an upload; a name and consent are given."""
    end = {"sha256": hashlib.sha256(data).digest(), "size": len(data)}
    fields = {"name": "Mine", "consent": True} | config
    return [
        pb.CreateVoiceRequest(config=pb.VoiceConfig(**fields)),  # type: ignore[arg-type]
        *(pb.CreateVoiceRequest(chunk={"data": piece}) for piece in split(data)),
        pb.CreateVoiceRequest(end=end),
    ]


def entry(identifier: str = "fake-speech", **options: object) -> ModelEntry:
    """Returns a catalogue entry of the fake engine."""
    return ModelEntry(
        id=identifier,
        service="tts",
        capabilities=(Capability.SPEECH,),
        engine="fake",
        options=options,  # type: ignore[arg-type]
    )


Serve = Callable[..., AbstractAsyncContextManager[Running]]
"""Starts a service: `serve(engine, max_speeches=..., max_queue=..., limit=...)`."""


@asynccontextmanager
async def serving(
    folder: Path,
    engine: FakeEngine | None = None,
    *,
    max_speeches: int = 32,
    max_queue: int = 64,
    limit: int = 100,
    entries: Iterable[ModelEntry] = (),
) -> AsyncIterator[Running]:
    """Serves until the block ends; then no seat, turn or utterance may be held."""
    models = tuple(entries) or (entry(),)
    engine = engine or FakeEngine(models)
    engines: dict[str, SpeechEngine] = {"fake": engine}
    router = EngineRouter(engines, {model.id: "fake" for model in models})
    speaker = Speaker(router, max_speeches=max_speeches, max_queue=max_queue)
    catalogue = Catalogue(models=models)
    store = VoiceStore(folder, limit=limit)
    servicer = SpeechServicer(router, catalogue, speaker=speaker, voices=store)
    async with (
        FakeAdmission() as admission,
        running_server(servicer, router, admission=admission) as (channel, _),
    ):
        stub = SpeechSynthesisServiceStub(channel)
        yield Running(channel, stub, engine, servicer, admission, folder)
    assert servicer_is_idle(servicer)
    assert not engine.streams


def servicer_is_idle(servicer: SpeechServicer) -> bool:
    """True if no seat and no turn is held or waited for."""
    return not any(queue.running or queue.depth for queue in servicer.queues.values())
