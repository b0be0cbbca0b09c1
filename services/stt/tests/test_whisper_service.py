"""Whisper base behind the whole edge: heard right, left halfway, healthy while it works."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import grpc.aio
import jiwer
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from atrium.stt.v1 import stt_pb2 as pb
from atrium.stt.v1.stt_pb2_grpc import TranscriptionServiceStub
from atrium_common.catalogue import Catalogue, ModelEntry
from atrium_common.chunks import split
from atrium_common.testing import FakeAdmission, running_server, tenant_metadata
from atrium_common.wire import duration_from_proto
from atrium_common.work import CancelToken
from atrium_stt.domain import Segment, TranscriptionInfo, TranscriptionJob
from atrium_stt.engines.faster_whisper import FasterWhisperEngine
from atrium_stt.engines.router import EngineRouter
from atrium_stt.recording import Recording
from atrium_stt.servicer import TranscriptionServicer
from atrium_stt.testing.sentences import SENTENCES

pytestmark = pytest.mark.model
NORMAL = EnglishTextNormalizer({})
BASE = "whisper-base"


class Running(NamedTuple):
    """The service under test."""

    channel: grpc.aio.Channel
    stub: TranscriptionServiceStub
    servicer: TranscriptionServicer
    admission: FakeAdmission


@pytest.fixture(scope="session")
async def service(base: FasterWhisperEngine, base_entry: ModelEntry) -> AsyncIterator[Running]:
    router = EngineRouter({base.name: base}, {BASE: base.name})
    servicer = TranscriptionServicer(router, Catalogue(models=(base_entry,)))
    async with (
        FakeAdmission() as admission,
        running_server(servicer, router, admission=admission) as (channel, _),
    ):
        yield Running(channel, TranscriptionServiceStub(channel), servicer, admission)


def upload(path: Path, **config: object) -> Iterator[pb.TranscribeAudioRequest]:
    data = path.read_bytes()
    yield pb.TranscribeAudioRequest(config=pb.TranscriptionConfig(model=BASE, **config))  # type: ignore[arg-type]
    for piece in split(data):
        yield pb.TranscribeAudioRequest(chunk={"data": piece})
    yield pb.TranscribeAudioRequest(
        end={"sha256": hashlib.sha256(data).digest(), "size": len(data)}
    )


async def test_a_sentence_is_heard_and_charged(service: Running, spoken: list[Path]) -> None:
    call = service.stub.TranscribeAudio(upload(spoken[0]), metadata=tenant_metadata())
    answers = [answer async for answer in call]
    assert [a.WhichOneof("step") for a in answers] == ["info", "segment", None]
    assert jiwer.wer(NORMAL(SENTENCES[0]), NORMAL(answers[1].segment.text)) < 0.10
    booking = service.admission.last
    await booking.closed.wait()
    assert booking.outcome == "COMPLETED"
    assert booking.usage is not None
    assert booking.usage.engine == "faster-whisper"
    assert booking.usage.inference_time > timedelta()
    assert booking.usage.input_audio == duration_from_proto(answers[0].info.duration)


async def test_a_caller_that_leaves_stops_the_work_and_pays_what_was_sent(
    service: Running,
    base: FasterWhisperEngine,
    minutes: Path,
    spoken: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transcriber = base._host.peek(BASE)
    assert transcriber is not None
    run, decoded = transcriber.run, list[Segment]()

    def counted(
        job: TranscriptionJob, recording: Recording, token: CancelToken
    ) -> Iterator[TranscriptionInfo | Segment]:
        for step in run(job, recording, token):
            if isinstance(step, Segment):
                decoded.append(step)
            yield step

    with monkeypatch.context() as patch:
        patch.setattr(transcriber, "run", counted)
        # Window by window: many segments, so that there is a next one to stop at.
        call = service.stub.TranscribeAudio(
            upload(minutes, language="en", beam_size=1, condition_on_previous_text=True),
            metadata=tenant_metadata(),
        )
        got = 0
        async for answer in call:
            got += answer.WhichOneof("step") == "segment"
            if got == 2:
                break
        call.cancel()
        booking = service.admission.last
        await booking.closed.wait()
        await base.verify(BASE)  # its turn comes once the device is free
    assert booking.outcome == "CANCELLED"
    assert booking.usage is not None
    ends = [segment.end for segment in decoded]
    sent = ends.index(booking.usage.input_audio) + 1
    assert sent >= 2  # more where they were on their way while the cancel was
    assert len(ends) <= sent + 3  # the device is two ahead and in the middle of a third
    assert ends[-1] < timedelta(seconds=60)  # of 85
    assert service.servicer.queues[base.name].running == 0

    following = service.stub.TranscribeAudio(upload(spoken[1]), metadata=tenant_metadata())
    told = "".join([answer.segment.text async for answer in following])
    assert jiwer.wer(NORMAL(SENTENCES[1]), NORMAL(told)) < 0.10


async def test_health_answers_while_the_engine_is_busy(service: Running, minutes: Path) -> None:
    call = service.stub.TranscribeAudio(
        upload(minutes, language="en", beam_size=1), metadata=tenant_metadata()
    )
    answers = aiter(call)
    assert (await anext(answers)).WhichOneof("step") == "info"
    first = asyncio.ensure_future(anext(answers))
    health = health_pb2_grpc.HealthStub(service.channel)
    for _ in range(20):
        reply = await health.Check(
            health_pb2.HealthCheckRequest(service=TranscriptionServicer.service_name)
        )
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        # A batch of windows takes seconds; had health waited for it, this would be done.
        assert not first.done()
    assert (await first).WhichOneof("step") == "segment"
    call.cancel()
    await service.admission.last.closed.wait()
