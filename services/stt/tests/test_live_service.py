"""Live transcription over real sockets with the fake engine: order, growth, ends, leaving."""

import asyncio
import contextlib
import hashlib
import itertools
import random
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import grpc
import grpc.aio
import numpy as np
import pytest

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
from atrium_stt.live.listening import LiveLimits
from atrium_stt.servicer import TranscriptionServicer
from atrium_stt.testing.sounds import RATE, tone, write_wav

IDLE = 1.0
FRAME = 0.1


class Running(NamedTuple):
    """The service under test."""

    stub: TranscriptionServiceStub
    engine: FakeEngine
    servicer: TranscriptionServicer
    admission: FakeAdmission
    port: int = 0


@contextlib.asynccontextmanager
async def serving(longest: timedelta = timedelta(seconds=120)) -> AsyncIterator[Running]:
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
            duration=longest, idle=timedelta(seconds=IDLE), reserve=timedelta(seconds=10)
        ),
        max_live_sessions=4,
    )
    async with (
        FakeAdmission() as admission,
        running_server(servicer, router, admission=admission) as (channel, port),
    ):
        yield Running(TranscriptionServiceStub(channel), engine, servicer, admission, port)


@pytest.fixture
async def service() -> AsyncIterator[Running]:
    async with serving() as running:
        yield running


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


def _length(segment: pb.Segment) -> float:
    return (duration_from_proto(segment.end) - duration_from_proto(segment.start)).total_seconds()


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


async def refusal(
    service: Running, requests: Iterable[pb.TranscribeLiveAudioRequest]
) -> AtriumError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await drain(service, requests)
    return from_rpc_error(caught.value)


async def to_the_error(
    call: "AsyncIterator[pb.TranscribeLiveAudioResponse]",
) -> tuple[list[pb.TranscribeLiveAudioResponse], grpc.aio.AioRpcError]:
    answers: list[pb.TranscribeLiveAudioResponse] = []
    try:
        async for answer in call:
            answers.append(answer)
    except grpc.aio.AioRpcError as error:
        return answers, error
    raise AssertionError("the call ended well")


async def freed(service: Running) -> bool:
    """Whether nothing of any session is left, once its last steps have run."""
    for _ in range(100):
        if not (service.servicer.live_sessions or service.engine.listening):
            break
        await asyncio.sleep(0.02)
    turns = service.servicer.turns["fake"]
    return (
        service.servicer.live_sessions == service.engine.listening == turns.running == turns.depth
        and turns.depth == 0
    )


@pytest.mark.parametrize("rate", [8_000, 11_025, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("size", [333, 4001])
async def test_any_rate_and_chunks_cut_within_samples(
    service: Running, rate: int, size: int
) -> None:
    time = np.arange(int(1.5 * rate)) / rate
    loud = (8000 * np.sin(2 * np.pi * 440 * time)).astype("<i2").tobytes()
    sound = bytes(2 * rate) + loud + bytes(2 * rate)
    answers = await drain(service, [config(rate), *frames(sound, size)])
    final = next(a.final for a in answers if a.HasField("final"))
    assert duration_from_proto(final.start).total_seconds() == pytest.approx(1, abs=0.06)
    assert duration_from_proto(final.end).total_seconds() == pytest.approx(2.5, abs=0.06)
    heard = duration_from_proto(answers[-1].usage.input_audio).total_seconds()
    assert heard == pytest.approx(3.5, abs=1e-3)


async def test_options_of_a_segment_are_honoured(service: Running) -> None:
    given = {"word_timestamps": True, "task": pb.TASK_TRANSLATE, "language": "de"}
    answers = await drain(service, [config(transcription=given), *frames(speech(2) + silence(1))])
    (answer,) = [a for a in answers if a.HasField("final")]
    assert answer.final.text == " translated0 translated1"
    assert [word.text for word in answer.final.words] == [" translated0", " translated1"]
    assert (answer.language, answer.language_probability) == ("de", 1.0)
    assert answer.final.average_logprob < 0


async def test_the_pause_that_ends_a_segment_is_the_callers(service: Running) -> None:
    sound = speech(1) + silence(0.8) + speech(1) + silence(2)
    for pause, finals in ((0.5, 2), (1.2, 1)):
        requests = [config(end_silence=timedelta(seconds=pause)), *frames(sound)]
        answers = await drain(service, requests)
        assert steps(answers).count("final") == finals


async def test_who_never_pauses_is_cut_and_nothing_is_lost(service: Running) -> None:
    sound = speech(25) + silence(0.1) + speech(40)
    answers = await drain(service, [config(), *frames(sound)])
    finals = [a.final for a in answers if a.HasField("final")]
    assert duration_from_proto(finals[0].end).total_seconds() == pytest.approx(25.05, abs=0.05)
    for before, after in itertools.pairwise(finals):
        assert before.end == after.start
        assert 20 <= _length(before) <= 28
    assert duration_from_proto(finals[-1].end).total_seconds() == pytest.approx(65.1, abs=0.1)


async def test_silence_gives_no_segment_but_usage(service: Running) -> None:
    answers = await drain(service, [config(partial_results=True), *frames(silence(21))])
    assert not steps(answers)
    audio = [duration_from_proto(a.usage.input_audio).total_seconds() for a in answers]
    assert audio == sorted(audio)
    assert len(audio) >= 4
    assert audio[-1] == 21


LIVE = "config.transcription"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"format": None}, "config.format.sample_rate"),
        ({"format": {"sample_rate": 7_999}}, "config.format.sample_rate"),
        ({"format": {"sample_rate": 48_001}}, "config.format.sample_rate"),
        ({"end_silence": timedelta(milliseconds=99)}, "config.end_silence"),
        ({"end_silence": timedelta(milliseconds=5001)}, "config.end_silence"),
        ({"transcription": {"model": "gpt-9"}}, "model"),
        (
            {"transcription": {"voice_activity_detection": False}},
            f"{LIVE}.voice_activity_detection",
        ),
        ({"transcription": {"language": "english"}}, f"{LIVE}.language"),
        ({"transcription": {"language": "tlh"}}, "language"),
        ({"transcription": {"temperature": 2.0}}, f"{LIVE}.temperature"),
        ({"transcription": {"beam_size": 11}}, f"{LIVE}.beam_size"),
        ({"transcription": {"hotwords": ["a"] * 65}}, f"{LIVE}.hotwords"),
    ],
)
async def test_what_can_not_be_honoured_is_refused_by_name(
    service: Running, fields: dict[str, object], field: str
) -> None:
    assert (await refusal(service, [config(**fields), *frames(silence(1))])).field == field  # type: ignore[arg-type]
    assert await freed(service)


async def test_the_edges_of_the_ranges_are_taken(service: Running) -> None:
    for rate, pause in ((8_000, 0.1), (48_000, 5.0)):
        given = config(rate, end_silence=timedelta(seconds=pause))
        second = pb.TranscribeLiveAudioRequest(chunk={"data": bytes(2 * rate)})
        answers = await drain(service, [given, second])
        assert duration_from_proto(answers[-1].usage.input_audio) == timedelta(seconds=1)


async def test_broken_messages_are_refused_and_the_service_stays_healthy(service: Running) -> None:
    empty = pb.TranscribeLiveAudioRequest()
    over = pb.TranscribeLiveAudioRequest(chunk={"data": bytes(2 * RATE + 2)})
    for requests, field in (
        (frames(silence(1)), "config"),
        ([], "config"),
        ([config(), config()], "config"),
        ([config(), empty], "step"),
        ([config(), over], "chunk"),
    ):
        assert (await refusal(service, requests)).field == field
    assert await freed(service)
    assert steps(await drain(service, [config(), *frames(speech(1))]))[-1] == "final"


async def test_a_caller_who_falls_silent_is_told_after_what_it_said(service: Running) -> None:
    async def stalls() -> AsyncIterator[pb.TranscribeLiveAudioRequest]:
        for request in [config(), *frames(speech(2))]:
            yield request
        await asyncio.sleep(60)

    call = service.stub.TranscribeLiveAudio(stalls(), metadata=tenant_metadata())
    answers, error = await to_the_error(call)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert from_rpc_error(error).reason == "LIVE_IDLE"
    assert steps(answers)[-1] == "final"
    booking = (await service.admission.closed(1))[0]
    assert booking.usage is not None
    assert booking.usage.input_audio == timedelta(seconds=2)
    assert await freed(service)


async def test_a_session_ends_at_its_longest(service: Running) -> None:
    error = await refusal(service, [config(), *frames(silence(120.1), 2 * RATE)])
    assert error.reason == "LIVE_TOO_LONG"
    answers = await drain(service, [config(), *frames(silence(120), 2 * RATE)])
    assert duration_from_proto(answers[-1].usage.input_audio) == timedelta(seconds=120)


async def test_results_that_nobody_reads_end_the_session() -> None:
    word = frames(speech(0.2) + silence(0.2), 16_000)
    given = config(end_silence=timedelta(milliseconds=100))
    given.config.transcription.word_timestamps = True

    async def much() -> AsyncIterator[pb.TranscribeLiveAudioRequest]:
        yield given
        for _ in range(1000):
            for request in word:
                yield request
        await asyncio.sleep(60)

    # A window that does not grow: what is not read fills it after 64 KiB.
    small = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 16_384)]
    async with (
        serving(timedelta(hours=1)) as service,
        grpc.aio.insecure_channel(f"127.0.0.1:{service.port}", options=small) as channel,
    ):
        call = TranscriptionServiceStub(channel).TranscribeLiveAudio(
            much(), metadata=tenant_metadata()
        )
        booking = (await service.admission.closed(1, timeout=30))[0]  # nothing is read so far
        assert booking.outcome == "FAILED"
        assert booking.usage is not None
        assert booking.usage.input_audio > timedelta(seconds=5)
        assert await freed(service)
        _, error = await to_the_error(call)
        assert from_rpc_error(error).reason == "LIVE_NOT_READ"


async def test_one_caller_too_many_is_told_to_come_again(service: Running) -> None:
    calls = []
    for _ in range(4):
        call = service.stub.TranscribeLiveAudio(metadata=gateway_metadata())
        await call.write(config())
        calls.append(call)
    for _ in range(100):
        if service.servicer.live_sessions == 4:
            break
        await asyncio.sleep(0.02)
    error = await refusal(service, [config()])
    assert error.reason == "OVERLOADED"
    assert error.retry_after is not None
    for call in calls:
        await call.done_writing()
        assert [a async for a in call] == []
    assert await drain(service, [config(), *frames(silence(0.5))])


async def test_a_direct_caller_reserves_step_by_step_and_is_charged_what_was_heard(
    service: Running,
) -> None:
    call = service.stub.TranscribeLiveAudio(
        iter([config(), *frames(silence(25))]), metadata=tenant_metadata()
    )
    assert [a async for a in call]
    booking = (await service.admission.closed(1))[0]
    assert (booking.outcome, booking.renewals) == ("COMPLETED", 2)
    assert booking.bound.input_audio == timedelta(seconds=30)
    assert booking.usage is not None
    assert booking.usage.input_audio == timedelta(seconds=25)


async def test_a_step_that_does_not_fit_ends_the_session_after_what_was_said(
    service: Running,
) -> None:
    service.admission.growth_limit = lambda bound: bound.input_audio <= timedelta(seconds=20)
    requests = [config(), *frames(silence(18) + speech(4), 16_000)]
    call = service.stub.TranscribeLiveAudio(iter(requests), metadata=tenant_metadata())
    answers, error = await to_the_error(call)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert steps(answers)[-1] == "final"
    booking = (await service.admission.closed(1))[0]
    assert booking.outcome == "FAILED"
    assert booking.usage is not None
    assert booking.usage.input_audio == timedelta(seconds=20)


async def test_who_leaves_before_any_audio_pays_nothing(service: Running) -> None:
    call = service.stub.TranscribeLiveAudio(metadata=tenant_metadata())
    await call.write(config())
    await asyncio.sleep(0.1)
    call.cancel()
    assert (await service.admission.closed(1))[0].outcome == "REFUNDED"
    assert await freed(service)


async def test_a_hundred_callers_leave_at_random_and_nothing_is_left(service: Running) -> None:
    chance = random.Random(7)  # noqa: S311
    sound = frames(speech(2) + silence(0.6) + speech(1) + silence(0.6))

    async def one(number: int) -> None:
        requests = paced([config(partial_results=number % 2 == 0), *sound], 0.002)
        call = service.stub.TranscribeLiveAudio(requests, metadata=tenant_metadata())
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(chance.uniform(0.0, 0.2)):
                async for _ in call:
                    pass
        call.cancel()

    for start in range(0, 100, 4):
        await asyncio.gather(*(one(number) for number in range(start, start + 4)))
        assert await freed(service)
    bookings = await service.admission.closed(len(service.admission.bookings), timeout=10)
    assert all(b.closings == 1 for b in bookings)
    charged = [b.usage.input_audio for b in bookings if b.usage is not None]
    assert all(audio <= timedelta(seconds=4.2) for audio in charged)
    assert steps(await drain(service, [config(), *sound]))[-1] == "final"


async def test_four_speakers_and_a_recording_share_the_engine(
    service: Running, tmp_path: Path
) -> None:
    sound = [config(partial_results=True), *frames(speech(3) + silence(1))]
    data = write_wav(tmp_path / "sound", tone(20)).read_bytes()
    end = {"sha256": hashlib.sha256(data).digest(), "size": len(data)}
    recording = [
        pb.TranscribeAudioRequest(config=pb.TranscriptionConfig()),
        *(pb.TranscribeAudioRequest(chunk={"data": piece}) for piece in split(data)),
        pb.TranscribeAudioRequest(end=end),
    ]

    async def file() -> int:
        call = service.stub.TranscribeAudio(iter(recording), metadata=gateway_metadata())
        return len([a async for a in call if a.HasField("segment")])

    speakers = [drain(service, paced(sound, 0.01)) for _ in range(4)]
    segments, *answers = await asyncio.gather(file(), *speakers)
    assert segments == 4
    for each in answers:
        assert [a.final.text for a in each if a.HasField("final")] == [" word0 word1 word2"]
