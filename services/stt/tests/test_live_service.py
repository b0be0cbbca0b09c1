"""Live transcription over real sockets with the fake engine: order, growth, ends, leaving."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import NamedTuple

import pytest

from atrium.stt.v1 import stt_pb2 as pb
from atrium.stt.v1.stt_pb2_grpc import TranscriptionServiceStub
from atrium_common.catalogue import Catalogue, ModelEntry
from atrium_common.domain import Capability
from atrium_common.testing import (
    FakeAdmission,
    gateway_metadata,
    running_server,
)
from atrium_common.wire import duration_from_proto
from atrium_stt.engines.fake import FakeEngine
from atrium_stt.engines.router import EngineRouter
from atrium_stt.live.listening import LiveLimits
from atrium_stt.servicer import TranscriptionServicer
from atrium_stt.testing.sounds import RATE, tone

IDLE = 1.0
FRAME = 0.1


class Running(NamedTuple):
    """The service under test."""

    stub: TranscriptionServiceStub
    engine: FakeEngine
    servicer: TranscriptionServicer
    admission: FakeAdmission


@pytest.fixture
async def service() -> AsyncIterator[Running]:
    entry = ModelEntry(
        id="fake-whisper",
        service="stt",
        capabilities=(Capability.TRANSCRIPTION,),
        engine="fake",
        aliases=("whisper-1",),
    )
    engine = FakeEngine([entry])
    router = EngineRouter({"fake": engine}, {entry.id: "fake"})
    servicer = TranscriptionServicer(
        router,
        Catalogue(models=(entry,)),
        live=LiveLimits(
            duration=timedelta(seconds=120),
            idle=timedelta(seconds=IDLE),
            reserve=timedelta(seconds=10),
        ),
        max_live_sessions=4,
    )
    async with (
        FakeAdmission() as admission,
        running_server(servicer, router, admission=admission) as (channel, _),
    ):
        yield Running(TranscriptionServiceStub(channel), engine, servicer, admission)


def config(rate: int = RATE, **fields: object) -> pb.TranscribeLiveAudioRequest:
    given = {"format": {"sample_rate": rate}, **fields}
    return pb.TranscribeLiveAudioRequest(config=pb.LiveTranscriptionConfig(**given))  # type: ignore[arg-type]


def silence(seconds: float) -> bytes:
    return bytes(2 * int(seconds * RATE))


def speech(seconds: float) -> bytes:
    return tone(seconds).tobytes()


def frames(sound: bytes, size: int = int(2 * FRAME * RATE)) -> list[pb.TranscribeLiveAudioRequest]:
    return [
        pb.TranscribeLiveAudioRequest(chunk={"data": sound[start : start + size]})
        for start in range(0, len(sound), size)
    ]


async def paced(
    requests: Iterable[pb.TranscribeLiveAudioRequest], pause: float
) -> AsyncIterator[pb.TranscribeLiveAudioRequest]:
    for request in requests:
        yield request
        await asyncio.sleep(pause)


async def drain(
    service: Running,
    requests: Iterable[pb.TranscribeLiveAudioRequest]
    | AsyncIterator[pb.TranscribeLiveAudioRequest],
) -> list[pb.TranscribeLiveAudioResponse]:
    call = service.stub.TranscribeLiveAudio(requests, metadata=gateway_metadata())
    return [message async for message in call]


def steps(answers: list[pb.TranscribeLiveAudioResponse]) -> list[str]:
    return [step for a in answers if (step := a.WhichOneof("step"))]


async def test_speech_is_reported_from_its_start_to_its_final_text(service: Running) -> None:
    sound = silence(1) + speech(3) + silence(1) + speech(1) + silence(1)
    answers = await drain(service, [config(), *frames(sound)])
    assert steps(answers) == ["speech_started", "speech_stopped", "final"] * 2
    finals = [a.final for a in answers if a.HasField("final")]
    assert [f.index for f in finals] == [0, 1]
    assert finals[0].text == " word0 word1 word2"
    times = [duration_from_proto(t).total_seconds() for f in finals for t in (f.start, f.end)]
    assert times == pytest.approx([1, 4, 5, 6], abs=0.05)
    assert duration_from_proto(answers[-1].usage.input_audio) == timedelta(seconds=7)
    assert answers[-1].usage.model == "fake-whisper"


async def test_partial_text_only_grows_into_the_final_text(service: Running) -> None:
    sound = silence(0.5) + speech(6) + silence(1)
    requests = [config(partial_results=True), *frames(sound)]
    answers = await drain(service, paced(requests, 0.02))
    partials = [a for a in answers if a.HasField("partial")]
    texts = [a.partial.text for a in partials]
    final = next(a.final.text for a in answers if a.HasField("final"))
    assert len(partials) >= 3
    assert texts[-1]
    assert all(after.startswith(before) for before, after in itertools.pairwise(texts))
    assert final.startswith(texts[-1])
    assert any(a.tentative_text for a in partials)
