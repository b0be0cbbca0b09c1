"""Order and leaving: fair turns, bounded work ahead, clean ends at every moment."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from speech_service import Running, Serve, entry

from atrium.tts.v1 import tts_pb2 as pb
from atrium_common.context import RequestContext
from atrium_common.errors import Unavailable
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.testing import gateway_metadata, tenant_metadata
from atrium_tts.domain import AudioFormat, SpeakRequest, SpeechEvent, SpeechInfo, SpeechJob
from atrium_tts.engines.base import Samples
from atrium_tts.engines.fake import FakeEngine
from atrium_tts.engines.router import EngineRouter
from atrium_tts.speech import Speaker
from atrium_tts.speech_plan import Planner
from atrium_tts.voices import VoiceStore

SENTENCE = "This is a sentence that is as long as a sentence usually is, number {}. "
DELAY = 0.02


def sentences(count: int) -> str:
    return "".join(SENTENCE.format(number) for number in range(count))


class Gated(FakeEngine):
    """Begins when it is told to."""

    def __init__(self) -> None:
        super().__init__([entry(delay_seconds=DELAY, seconds_per_character=0.01)])
        self.gate = asyncio.Event()

    async def speak(self, request: SpeakRequest) -> AsyncGenerator[Samples, None]:
        await self.gate.wait()
        async with contextlib.aclosing(super().speak(request)) as pieces:
            async for piece in pieces:
                yield piece


async def seated(service: Running, count: int) -> None:
    """Waits until so many callers have a seat."""
    async with asyncio.timeout(10):
        while service.servicer.queues["fake"].running < count:  # noqa: ASYNC110 - has no event
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("tenants", [1, 8])
async def test_eight_callers_hear_something_before_one_gets_its_third_sentence(
    serve: Serve, tenants: int
) -> None:
    engine = Gated()
    async with serve(engine) as service:
        heard: dict[int, list[float]] = {number: [] for number in range(8)}
        clock = asyncio.get_running_loop().time

        async def caller(number: int) -> None:
            start = service.call(tenant=f"t{number % tenants}", reservation=f"r{number}")
            # Different lengths: a fair share is by characters, turns are by sentence.
            call = start(
                text=sentences(3 + number % 2), sentence_marks=True, format=pb.AUDIO_FORMAT_PCM
            )
            fresh = False
            async for answer in call:
                fresh = fresh or answer.HasField("mark")
                if fresh and answer.chunk.data:
                    heard[number].append(clock())
                    fresh = False

        callers = asyncio.gather(*(caller(number) for number in range(8)))
        await seated(service, 8)
        engine.gate.set()
        await callers
        assert all(len(times) >= 3 for times in heard.values())
        last_first = max(times[0] for times in heard.values())
        assert last_first < min(times[2] for times in heard.values())


async def test_a_late_caller_waits_for_one_sentence_not_for_a_text(serve: Serve) -> None:
    async with serve(entries=[entry(delay_seconds=DELAY, seconds_per_character=0.01)]) as service:
        early = asyncio.create_task(service.speak(text=sentences(12)))
        await asyncio.sleep(3 * DELAY)
        late = asyncio.create_task(service.speak(text="Here I am, too."))
        await seated(service, 2)
        begun = service.engine.started
        await late
        order = [request.text for request in service.engine.spoken]
        # After the one that was being said, and one that may have been next already.
        assert order.index("Here I am, too.") <= begun + 1
        assert not early.done()
        await early


class Watched(FakeEngine):
    """Counts what it gave, in seconds."""

    given = 0.0

    async def speak(self, request: SpeakRequest) -> AsyncGenerator[Samples, None]:
        async with contextlib.aclosing(super().speak(request)) as pieces:
            async for piece in pieces:
                self.given += len(piece) / 24_000
                yield piece


async def open_speech(
    engine: FakeEngine, folder: Path, count: int
) -> tuple[Speaker, Callable[[], AsyncGenerator[SpeechEvent, None]]]:
    """Starts speeches without the wire, whose buffers would read ahead by themselves."""
    await engine.load()
    router = EngineRouter({"fake": engine}, {"fake-speech": "fake"})
    speaker = Speaker(router)
    job = SpeechJob(model="fake-speech", input=sentences(count), format=AudioFormat.PCM)
    plan = await Planner(router, VoiceStore(folder)).plan(job, tenant="slow")
    return speaker, lambda: speaker.speak(plan, RequestContext(request_id="r", tenant="slow"))


async def settled(engine: Watched) -> float:
    """Waits until the engine gives no more; returns the seconds that it gave."""
    made = -1.0
    while engine.given != made:
        made = engine.given
        await asyncio.sleep(0.05)
    return made


@pytest.mark.parametrize("per_character", [0.05, 0.4])
async def test_a_reader_that_does_not_read_holds_up_nobody_and_little_is_made_for_it(
    tmp_path: Path, per_character: float
) -> None:
    engine = Watched([entry(seconds_per_character=per_character)])
    speaker, start = await open_speech(engine, tmp_path, 10)
    length = per_character * len(SENTENCE.format(0).strip())
    async with contextlib.aclosing(start()) as stalled:
        read = 0.0
        async for event in stalled:
            if isinstance(event.step, bytes):
                read += len(event.step) / 48_000
            if read > 1.5 * length:
                break
        # In the second sentence: two more are made; or as many as give thirty seconds.
        made = await settled(engine)
        begun = 4 if per_character < 0.1 else 3
        assert engine.started == begun
        assert made == pytest.approx(begun * length, abs=0.1)
        async with contextlib.aclosing(start()) as other:
            sizes = [len(event.step) async for event in other if isinstance(event.step, bytes)]
        assert sum(sizes) / 48_000 == pytest.approx(10 * length, abs=0.2)
        assert engine.started == begun + 10
    assert not any(queue.running or queue.depth for queue in speaker.queues.values())


async def test_cancelling_at_any_moment_leaves_nothing_held_and_charges_what_was_begun(
    serve: Serve,
) -> None:
    dice = random.Random(4)  # noqa: S311 - repeats the same moments
    text = sentences(6)
    async with serve(
        entries=[entry(delay_seconds=0.002, seconds_per_character=0.02)], max_speeches=3
    ) as service:
        tasks = len(asyncio.all_tasks())

        async def leave() -> None:
            request = pb.SynthesizeSpeechRequest(
                text=text, format=dice.randrange(7), speed=dice.choice((0.3, 1.0, 3.0))
            )
            call = service.stub.SynthesizeSpeech(request, metadata=tenant_metadata())
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(dice.random() * 0.06):
                    async for _ in call:
                        pass
            call.cancel()

        for _ in range(25):
            await asyncio.gather(*(leave() for _ in range(4)))
        await service.idle()
        started = service.engine.started
        await asyncio.sleep(0.05)
        assert service.engine.started == started
        bookings = list(service.admission.bookings.values())
        async with asyncio.timeout(5):
            for booking in bookings:
                await booking.closed.wait()
        assert {b.outcome for b in bookings} <= {"CANCELLED", "COMPLETED", "REFUNDED"}
        assert sum(b.outcome == "CANCELLED" for b in bookings) >= 20
        for booking in bookings:
            if booking.usage is not None:
                assert booking.usage.characters <= len(text)
                assert booking.closings == 1
        # Every sentence that was begun is on somebody's bill.
        charged = sum(b.usage.characters for b in bookings if b.usage is not None)
        spoken = sum(len(request.text) for request in service.engine.spoken)
        assert charged >= spoken
        await asyncio.sleep(0.1)
        assert len(asyncio.all_tasks()) <= tasks + 2
        assert len(await service.speak(text="Still well.")) > 2


async def test_cancelling_stops_within_the_sentence_and_charges_it(serve: Serve) -> None:
    async with serve(entries=[entry(delay_seconds=0.1, seconds_per_character=0.01)]) as service:
        request = pb.SynthesizeSpeechRequest(text=sentences(10), sentence_marks=True)
        call = service.stub.SynthesizeSpeech(request, metadata=tenant_metadata())
        async for answer in call:
            if answer.HasField("mark") and answer.mark.index == 1:
                break
        call.cancel()
        begun = service.engine.started
        booking = (await service.admission.closed(1))[0]
        await service.idle()
        await asyncio.sleep(0.2)
        assert service.engine.started <= begun + 1
        assert booking.outcome == "CANCELLED"
        assert booking.usage is not None
        spoken = service.engine.spoken
        assert booking.usage.characters >= sum(len(request.text) for request in spoken[:2])
        assert booking.usage.characters <= sum(len(request.text) + 1 for request in spoken)
        assert booking.usage.output_audio.total_seconds() > 0


async def test_a_sentence_is_charged_when_it_begins(serve: Serve) -> None:
    async with serve(entries=[entry(delay_seconds=0.1, seconds_per_character=0.01)]) as service:
        text = sentences(3)
        fields = {"text": text, "sentence_marks": True, "format": pb.AUDIO_FORMAT_PCM}
        both = [service.speak(**fields) for _ in range(2)]
        for answers in await asyncio.gather(*both):
            assert answers[0].usage.characters > 0
            for answer in answers:
                if answer.HasField("mark"):
                    assert answer.usage.characters >= answer.mark.end_character
            # While the other one has its turn, all that was made is sent; then the next
            # sentence begins, and says so before it gives any audio.
            alone = [n for n, answer in enumerate(answers) if answer.WhichOneof("step") is None]
            assert alone
            for n in alone:
                assert answers[n].usage.characters > answers[n - 1].usage.characters


async def test_more_callers_than_seats_wait_and_too_many_are_refused(serve: Serve) -> None:
    entries = [entry(delay_seconds=5 * DELAY, seconds_per_character=0.01)]
    async with serve(entries=entries, max_speeches=2, max_queue=2) as service:
        calls = [service.call(reservation=f"r{n}")(text=sentences(3)) for n in range(8)]

        async def outcome(call: grpc.aio.UnaryStreamCall) -> grpc.StatusCode:
            with contextlib.suppress(grpc.aio.AioRpcError):
                async for _ in call:
                    pass
            return await call.code()

        codes = await asyncio.gather(*(outcome(call) for call in calls))
        assert codes.count(grpc.StatusCode.OK) == 4
        assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 4
        assert service.is_idle


async def gather_into(
    answers: list[pb.SynthesizeSpeechResponse], call: grpc.aio.UnaryStreamCall
) -> None:
    async for answer in call:
        answers.append(answer)


class Breaking(FakeEngine):
    """Fails in the middle of its third utterance."""

    error: Exception = Unavailable("The device is gone.")

    async def speak(self, request: SpeakRequest) -> AsyncGenerator[Samples, None]:
        async with contextlib.aclosing(super().speak(request)) as pieces:
            async for piece in pieces:
                yield piece
                if self.started == 3:
                    raise self.error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unavailable("The device is gone."), grpc.StatusCode.UNAVAILABLE),
        (RuntimeError("secret detail"), grpc.StatusCode.INTERNAL),
    ],
)
async def test_an_engine_that_fails_midway_ends_with_a_named_error(
    serve: Serve, error: Exception, code: grpc.StatusCode
) -> None:
    engine = Breaking([entry()])
    engine.error = error
    async with serve(engine) as service:
        request = pb.SynthesizeSpeechRequest(text=sentences(5), format=pb.AUDIO_FORMAT_PCM)
        call = service.stub.SynthesizeSpeech(request, metadata=tenant_metadata())
        answers: list[pb.SynthesizeSpeechResponse] = []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gather_into(answers, call)
        assert caught.value.code() is code
        assert "secret" not in from_rpc_error(caught.value).message
        # All that was made before is heard, and there is no end that would say it is whole.
        heard = sum(len(answer.chunk.data) for answer in answers) / 48_000
        assert heard == pytest.approx(2 * 0.05 * len(SENTENCE) + 0.25, abs=0.3)
        assert not any(answer.HasField("end") for answer in answers)
        booking = (await service.admission.closed(1))[0]
        assert booking.outcome == "FAILED"
        await service.idle()
        assert (await service.speak(text="Well again."))[-1].HasField("end")


class Silent(FakeEngine):
    """Gives nothing, or empty pieces."""

    async def speak(self, request: SpeakRequest) -> AsyncGenerator[Samples, None]:
        del request
        yield np.zeros(0, np.float32)


@pytest.mark.parametrize("number", range(7))
async def test_an_engine_that_gives_nothing_makes_an_empty_file(serve: Serve, number: int) -> None:
    async with serve(Silent([entry()])) as service:
        answers = await service.speak(text="Hello.", format=number, speed=0.3)
        assert answers[-1].HasField("end")
        assert not answers[-1].usage.HasField("output_audio")


class Whole(Watched):
    """Wants a text whole, as a provider does."""

    sentencewise = False


async def test_an_engine_that_wants_a_text_whole_gets_it_and_waits_for_the_reader(
    tmp_path: Path,
) -> None:
    engine = Whole([entry()])
    _, start = await open_speech(engine, tmp_path, 20)
    async with contextlib.aclosing(start()) as stream:
        info = (await anext(stream)).step
        assert isinstance(info, SpeechInfo)
        assert info.sentences == 1
        assert 30.0 <= await settled(engine) <= 30.5
        assert engine.streams == 1
        events = [event async for event in stream]
    assert events[-1].usage.characters == len(sentences(20))
    assert [request.text for request in engine.spoken] == [sentences(20).strip()]


async def test_the_deadline_ends_a_speech(serve: Serve) -> None:
    async with serve(entries=[entry(delay_seconds=0.2, seconds_per_character=0.01)]) as service:
        request = pb.SynthesizeSpeechRequest(text=sentences(20))
        call = service.stub.SynthesizeSpeech(request, metadata=gateway_metadata(), timeout=0.5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                pass
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await service.idle()
        assert service.engine.started < 6


async def test_the_first_audio_does_not_wait_for_the_second_sentence(service: Running) -> None:
    gate = asyncio.Event()
    speak = service.engine.speak

    async def gated(request: SpeakRequest) -> AsyncGenerator[Samples, None]:
        if service.engine.started:
            await gate.wait()
        async with contextlib.aclosing(speak(request)) as pieces:
            async for piece in pieces:
                yield piece

    service.engine.speak = gated  # type: ignore[method-assign]
    call = service.call()(text=sentences(2))
    got = 0
    async for answer in call:
        got += len(answer.chunk.data)
        if got > 8_000:  # nearly all of the first sentence at 64 kbit/s
            break
    gate.set()
    assert [answer async for answer in call][-1].HasField("end")
