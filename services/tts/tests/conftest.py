"""A running speech service with the fake engine, and what its tests ask of it."""

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
    speaker: Speaker
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

    @property
    def is_idle(self) -> bool:
        """True if no seat, turn or utterance is held."""
        queues = self.servicer.queues.values()
        return not self.engine.streams and not any(q.running or q.depth for q in queues)


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


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Starts a service: `serve(engine, max_speeches=..., max_queue=..., limit=...)`."""

    @asynccontextmanager
    async def start(
        engine: FakeEngine | None = None,
        *,
        max_speeches: int = 32,
        max_queue: int = 64,
        limit: int = 100,
        entries: Iterable[ModelEntry] = (),
    ) -> AsyncIterator[Running]:
        models = tuple(entries) or (entry(),)
        engine = engine or FakeEngine(models)
        engines: dict[str, SpeechEngine] = {"fake": engine}
        router = EngineRouter(engines, {model.id: "fake" for model in models})
        speaker = Speaker(router, max_speeches=max_speeches, max_queue=max_queue)
        folder = tmp_path / "voices"
        servicer = SpeechServicer(
            router,
            Catalogue(models=models),
            speaker=speaker,
            voices=VoiceStore(folder, limit=limit),
        )
        async with (
            FakeAdmission() as admission,
            running_server(servicer, router, admission=admission) as (channel, _),
        ):
            stub = SpeechSynthesisServiceStub(channel)
            running = Running(channel, stub, engine, servicer, speaker, admission, folder)
            yield running
            assert running.is_idle

    return start


@pytest.fixture
async def service(serve: Serve) -> AsyncIterator[Running]:
    """A service with the fake engine at its defaults."""
    async with serve() as running:
        yield running
