"""The service over real sockets with the fake engine: uploads, order, leaving, metering."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from atrium.stt.v1 import stt_pb2 as pb
from atrium.stt.v1.stt_pb2_grpc import TranscriptionServiceStub
from atrium_common.catalogue import Catalogue, ModelEntry
from atrium_common.chunks import split
from atrium_common.domain import Capability
from atrium_common.errors import AtriumError
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.testing import (
    FakeAdmission,
    gateway_metadata,
    running_server,
    tenant_metadata,
)
from atrium_common.wire import duration_from_proto
from atrium_stt.engines.fake import FakeEngine
from atrium_stt.engines.router import EngineRouter
from atrium_stt.recording import AudioLimits
from atrium_stt.servicer import TranscriptionServicer
from atrium_stt.testing.sounds import tone, write_wav

DELAY = 0.05


class Running(NamedTuple):
    """The service under test."""

    channel: grpc.aio.Channel
    stub: TranscriptionServiceStub
    engine: FakeEngine
    servicer: TranscriptionServicer
    admission: FakeAdmission


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Running]:
    entry = ModelEntry(
        id="fake-whisper",
        service="stt",
        capabilities=(Capability.TRANSCRIPTION,),
        engine="fake",
        aliases=("whisper-1",),
        options={"segment_seconds": 1.0, "delay_seconds": DELAY},
    )
    engine = FakeEngine([entry])
    router = EngineRouter({"fake": engine}, {entry.id: "fake"})
    spool = tmp_path / "spool"
    spool.mkdir()
    servicer = TranscriptionServicer(
        router,
        Catalogue(models=(entry,)),
        limits=AudioLimits(duration=timedelta(seconds=30), directory=spool),
        max_bytes=2_000_000,
        reserve=timedelta(seconds=2),
    )
    async with (
        FakeAdmission() as admission,
        running_server(servicer, router, admission=admission) as (channel, _),
    ):
        yield Running(channel, TranscriptionServiceStub(channel), engine, servicer, admission)
    assert not list(spool.iterdir())


def upload(data: bytes, **config: object) -> list[pb.TranscribeAudioRequest]:
    end = {"sha256": hashlib.sha256(data).digest(), "size": len(data)}
    return [
        pb.TranscribeAudioRequest(config=pb.TranscriptionConfig(**config)),  # type: ignore[arg-type]
        *(pb.TranscribeAudioRequest(chunk={"data": piece}) for piece in split(data)),
        pb.TranscribeAudioRequest(end=end),
    ]


def seconds(tmp_path: Path, length: float) -> bytes:
    return write_wav(tmp_path / "sound", tone(length)).read_bytes()


async def drain(
    service: Running, requests: Iterable[pb.TranscribeAudioRequest], **metadata: str
) -> list[pb.TranscribeAudioResponse]:
    call = service.stub.TranscribeAudio(iter(requests), metadata=gateway_metadata(**metadata))
    return [message async for message in call]


async def refusal(service: Running, requests: Iterable[pb.TranscribeAudioRequest]) -> AtriumError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await drain(service, requests)
    return from_rpc_error(caught.value)


async def test_info_first_then_segments_each_with_what_was_consumed_so_far(
    service: Running, tmp_path: Path
) -> None:
    answers = await drain(service, upload(seconds(tmp_path, 3.5), word_timestamps=True))
    assert [a.WhichOneof("step") for a in answers] == ["info", *["segment"] * 4, None]
    assert [a.segment.index for a in answers[1:5]] == [0, 1, 2, 3]
    assert all(len(a.segment.words) == 3 for a in answers[1:5])
    audio = [duration_from_proto(a.usage.input_audio).total_seconds() for a in answers]
    assert audio == [0.0, 1.0, 2.0, 3.0, 3.5, 3.5]
    assert answers[-1].usage.model == "fake-whisper"
    assert answers[-1].usage.engine == "fake"


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"model": "gpt-9"}, "model"),
        ({"language": "english"}, "config.language"),
        ({"language": "tlh"}, "language"),
        ({"task": 9}, "config.task"),
        ({"temperature": 1.1}, "config.temperature"),
        ({"temperature": float("nan")}, "config.temperature"),
        ({"beam_size": 0}, "config.beam_size"),
        ({"beam_size": 11}, "config.beam_size"),
        ({"hotwords": ["a"] * 65}, "config.hotwords"),
        ({"hotwords": ["b" * 65]}, "config.hotwords[0]"),
        ({"prompt": "p" * 20_000}, "config.prompt"),
    ],
)
async def test_what_can_not_be_honoured_is_refused_by_name(
    service: Running, tmp_path: Path, config: dict[str, object], field: str
) -> None:
    assert (await refusal(service, upload(seconds(tmp_path, 1), **config))).field == field


async def test_broken_uploads_are_refused_and_the_service_stays_healthy(
    service: Running, tmp_path: Path
) -> None:
    good = upload(seconds(tmp_path, 1))
    wrong_hash = pb.TranscribeAudioRequest(end={"sha256": bytes(32), "size": good[-1].end.size})
    cases = {
        "INVALID_ARGUMENT": [good[1:], [good[0], good[0]], [good[0], pb.TranscribeAudioRequest()]],
        "UPLOAD_INCOMPLETE": [good[:-1], [good[0], good[1], good[-1]][:2]],
        "UPLOAD_CORRUPT": [[*good[:-1], wrong_hash]],
        "UPLOAD_EMPTY": [upload(b"")],
        "AUDIO_FORMAT_UNKNOWN": [upload(b"no audio at all " * 50)],
        "AUDIO_TOO_LONG": [upload(seconds(tmp_path, 31))],
        "TOO_LARGE": [upload(bytes(2_000_001))],
    }
    for reason, uploads in cases.items():
        for requests in uploads:
            assert (await refusal(service, requests)).reason == reason
    assert service.servicer.queues["fake"].running == 0
    assert len(await drain(service, good)) == 3


async def test_a_client_that_leaves_stops_the_work_and_pays_what_it_was_sent(
    service: Running, tmp_path: Path
) -> None:
    requests = upload(seconds(tmp_path, 25))
    for number, wanted in enumerate((1, 2, 4, 7), start=1):
        call = service.stub.TranscribeAudio(iter(requests), metadata=tenant_metadata())
        begun = service.engine.started
        got = 0
        async for answer in call:
            got += answer.WhichOneof("step") == "segment"
            if got == wanted:
                break
        call.cancel()
        bookings = await service.admission.closed(number)
        assert bookings[-1].outcome == "CANCELLED"
        usage = bookings[-1].usage
        assert usage is not None
        # A segment may be on its way while the cancel is.
        assert wanted <= usage.input_audio.total_seconds() <= wanted + 1
        await asyncio.sleep(3 * DELAY)
        assert service.engine.started - begun <= wanted + 2
        assert service.servicer.queues["fake"].running == 0


async def test_a_client_that_leaves_during_the_upload_pays_nothing(
    service: Running, tmp_path: Path
) -> None:
    requests = upload(seconds(tmp_path, 5))

    async def half() -> AsyncIterator[pb.TranscribeAudioRequest]:
        for request in requests[:3]:
            yield request
        await asyncio.sleep(60)

    call = service.stub.TranscribeAudio(half(), metadata=tenant_metadata())
    await asyncio.sleep(0.2)
    call.cancel()
    bookings = await service.admission.closed(1)
    assert bookings[0].outcome == "REFUNDED"
    assert service.engine.started == 0


async def test_a_direct_caller_is_charged_the_whole_recording(
    service: Running, tmp_path: Path
) -> None:
    call = service.stub.TranscribeAudio(
        iter(upload(seconds(tmp_path, 2.5))), metadata=tenant_metadata()
    )
    assert len([a async for a in call]) == 5
    booking = (await service.admission.closed(1))[0]
    assert booking.outcome == "COMPLETED"
    assert booking.usage is not None
    assert booking.usage.input_audio == timedelta(seconds=2.5)
    assert booking.bound.input_audio == timedelta(seconds=2.5)


async def test_audio_over_a_direct_callers_limit_is_refused_before_any_work(
    service: Running, tmp_path: Path
) -> None:
    service.admission.growth_limit = lambda bound: bound.input_audio <= timedelta(seconds=3)
    call = service.stub.TranscribeAudio(
        iter(upload(seconds(tmp_path, 3.1))), metadata=tenant_metadata()
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [answer async for answer in call]
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert service.engine.started == 0
    assert (await service.admission.closed(1))[0].outcome == "REFUNDED"

    fits = service.stub.TranscribeAudio(
        iter(upload(seconds(tmp_path, 3.0))), metadata=tenant_metadata()
    )
    assert len([answer async for answer in fits]) == 5
    booking = (await service.admission.closed(2))[1]
    assert (booking.outcome, booking.renewals) == ("COMPLETED", 1)


async def test_four_callers_take_turns_by_tenant_and_health_answers_meanwhile(
    service: Running, tmp_path: Path
) -> None:
    data = upload(seconds(tmp_path, 4))
    ended: list[str] = []

    async def one(tenant: str, number: int) -> None:
        await asyncio.sleep(0.05 * number)
        await drain(service, data, tenant=tenant, reservation=f"r-{number}")
        ended.append(tenant)

    health = health_pb2_grpc.HealthStub(service.channel)
    callers = [one(tenant, n) for n, tenant in enumerate(("greedy", "greedy", "greedy", "late"))]
    work = asyncio.gather(*callers)
    slowest = 0.0
    while not work.done():
        started = time.monotonic()
        await health.Check(health_pb2.HealthCheckRequest())
        slowest = max(slowest, time.monotonic() - started)
        await asyncio.sleep(0.01)
    await work
    assert ended.index("late") == 1  # after the one that ran, before greedy's others
    assert slowest < 0.25


async def test_lists_the_models(service: Running) -> None:
    reply = await service.stub.ListModels(pb.ListModelsRequest(), metadata=gateway_metadata())
    assert [m.id for m in reply.models] == ["fake-whisper"]
    assert list(reply.models[0].aliases) == ["whisper-1"]
