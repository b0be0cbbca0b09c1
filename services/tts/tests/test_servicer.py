"""The service over real sockets with the fake engine: fields, order, the file, metering."""

import hashlib
import io
import struct
from itertools import pairwise

import av
import grpc
import grpc.aio
import numpy as np
import pytest
from speech_service import Running, Serve, entry

from atrium.common.v1 import usage_pb2
from atrium.tts.v1 import tts_pb2 as pb
from atrium_common.domain import ModelState
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.testing import check_service, gateway_metadata, tenant_metadata

TEXT = (
    "The first sentence is spoken here, and it is not short. "
    "A second sentence follows it, and is as long as that. "
    "Then comes the third sentence, which is the last one."
)
RATE = 24_000


def audio_of(answers: list[pb.SynthesizeSpeechResponse]) -> bytes:
    """The file, checked against what ends it."""
    data = b"".join(answer.chunk.data for answer in answers)
    end = answers[-1].end
    assert (end.size, end.sha256) == (len(data), hashlib.sha256(data).digest())
    return data


def samples_of(answers: list[pb.SynthesizeSpeechResponse]) -> np.ndarray:
    return np.frombuffer(audio_of(answers), "<i2").astype(np.float32) / 32768


def hertz(samples: np.ndarray, rate: int = RATE) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


async def test_does_what_every_service_promises(service: Running) -> None:
    await check_service(service.channel, service.servicer.service_name)
    reply = await service.stub.ListModels(pb.ListModelsRequest(), metadata=gateway_metadata())
    assert [model.id for model in reply.models] == ["fake-speech"]


async def test_info_first_then_sentences_then_the_end_each_with_the_usage_so_far(
    service: Running,
) -> None:
    answers = await service.speak(text=TEXT, format=pb.AUDIO_FORMAT_PCM, sentence_marks=True)
    kinds = [answer.WhichOneof("step") for answer in answers]
    assert (kinds[0], kinds[-1], kinds.count("info"), kinds.count("end")) == ("info", "end", 1, 1)
    info = answers[0].info
    assert (info.model, info.voice, info.sentences) == ("fake-speech", "tone-a", 3)
    assert (info.format, info.sample_rate, info.content_type) == (
        pb.AUDIO_FORMAT_PCM,
        RATE,
        "audio/pcm",
    )
    marks = [answer.mark for answer in answers if answer.HasField("mark")]
    assert [mark.index for mark in marks] == [0, 1, 2]
    assert [TEXT[mark.start_character : mark.end_character].strip()[:6] for mark in marks] == [
        "The fi",
        "A seco",
        "Then c",
    ]
    samples = samples_of(answers)
    for mark in marks[1:]:  # the tone begins anew at each mark
        at = round(mark.start.ToTimedelta().total_seconds() * RATE)
        assert abs(samples[at]) < 0.01
    usages = [answer.usage for answer in answers]
    # Whole sentences that were begun: the first, and others where the engine is ahead already.
    begun = [*(mark.start_character for mark in marks[1:]), len(TEXT)]
    assert usages[0].characters in begun
    assert usages[-1].characters == len(TEXT)
    assert usages[-1].output_audio.ToTimedelta().total_seconds() == pytest.approx(
        len(samples) / RATE, abs=1e-4
    )
    assert (usages[-1].engine, usages[-1].input_tokens) == ("fake", 0)
    for earlier, later in pairwise(usages):
        assert earlier.characters <= later.characters
        assert earlier.output_audio.ToTimedelta() <= later.output_audio.ToTimedelta()
        assert earlier.inference_time.ToTimedelta() <= later.inference_time.ToTimedelta()
    assert all(len(answer.chunk.data) <= 64 * 1024 for answer in answers)


@pytest.mark.parametrize(
    ("number", "name", "content_type"),
    [
        (pb.AUDIO_FORMAT_UNSPECIFIED, "mp3", "audio/mpeg"),
        (pb.AUDIO_FORMAT_MP3, "mp3", "audio/mpeg"),
        (pb.AUDIO_FORMAT_OPUS, "ogg", "audio/ogg"),
        (pb.AUDIO_FORMAT_AAC, "aac", "audio/aac"),
        (pb.AUDIO_FORMAT_FLAC, "flac", "audio/flac"),
        (pb.AUDIO_FORMAT_WAV, "wav", "audio/wav"),
    ],
)
async def test_every_format_is_a_file_as_long_as_the_usage_says(
    service: Running, number: int, name: str, content_type: str
) -> None:
    answers = await service.speak(text=TEXT, format=number)
    assert answers[0].info.content_type == content_type
    assert answers[0].info.format == (number or pb.AUDIO_FORMAT_MP3)
    said = answers[-1].usage.output_audio.ToTimedelta().total_seconds()
    assert said == pytest.approx(0.05 * len(TEXT), rel=0.03)
    with av.open(io.BytesIO(audio_of(answers))) as container:
        assert container.format.name == name
        frames = list(container.decode(audio=0))
    assert sum(f.samples / f.sample_rate for f in frames) == pytest.approx(said, rel=0.02)


async def test_the_wav_header_leaves_the_length_open(service: Running) -> None:
    data = audio_of(await service.speak(text=TEXT, format=pb.AUDIO_FORMAT_WAV, sample_rate=16_000))
    assert data[:4] + data[8:16] == b"RIFFWAVEfmt "
    assert struct.unpack("<IHHIIHH", data[16:36]) == (16, 1, 1, 16_000, 32_000, 2, 16)
    assert data[4:8] == data[40:44] == b"\xff" * 4


async def test_options_reach_the_engine_and_the_file(service: Running) -> None:
    fields = {"text": TEXT, "format": pb.AUDIO_FORMAT_PCM}
    plain = samples_of(await service.speak(**fields))
    assert hertz(plain) == pytest.approx(200, abs=1)
    for voice, identifier, heard in (("echo", "tone-b", 250), ("tone-d", "tone-d", 350)):
        answers = await service.speak(voice=voice, **fields)
        assert answers[0].info.voice == identifier
        assert hertz(samples_of(answers)) == pytest.approx(heard, abs=1)
    await service.speak(
        **fields, seed=7, temperature=0.5, instructions=" Whisper. ", language="EN-gb", speed=1.5
    )
    asked = service.engine.spoken[-1]
    assert (asked.seed, asked.temperature, asked.instructions) == (7, 0.5, "Whisper.")
    assert (asked.language, asked.speed, asked.voice.id) == ("en-gb", 1.5, "tone-c")
    again = [
        audio_of(await service.speak(**fields, seed=seed, temperature=0.5)) for seed in (1, 1, 2)
    ]
    assert again[0] == again[1] != again[2]
    low = await service.speak(**fields, sample_rate=8_000)
    assert (low[0].info.sample_rate, len(audio_of(low))) == (
        8_000,
        pytest.approx(len(plain) * 2 / 3),
    )
    small, large = [
        len(audio_of(await service.speak(text=TEXT, bit_rate=rate))) for rate in (16_000, 64_000)
    ]
    assert large > 3 * small


@pytest.mark.parametrize("speed", [0.25, 0.5, 1.5, 2.0, 4.0])
async def test_what_the_engine_can_not_speed_up_is_stretched(
    service: Running, speed: float
) -> None:
    answers = await service.speak(text=TEXT, format=pb.AUDIO_FORMAT_PCM, speed=speed)
    samples = samples_of(answers)
    assert len(samples) / RATE == pytest.approx(0.05 * len(TEXT) / speed, rel=0.03)
    assert hertz(samples) == pytest.approx(200, abs=4)
    assert service.engine.spoken[-1].speed == min(max(speed, 0.5), 2.0)


async def test_ssml_is_spoken_with_its_pauses_rates_and_languages(service: Running) -> None:
    ssml = (
        '<speak>One sentence here.<break time="1500ms"/>'
        '<prosody rate="200%">This is twice as fast.</prosody> <p><lang xml:lang="de">'
        "Und das ist Deutsch.</lang></p></speak>"
    )
    answers = await service.speak(ssml=ssml, format=pb.AUDIO_FORMAT_PCM)
    spoken = service.engine.spoken[-answers[0].info.sentences :]
    assert {request.language for request in spoken} == {"en-us", "de"}
    assert {request.speed for request in spoken} == {1.0, 2.0}
    silent = np.abs(samples_of(answers)) < 1e-4
    run = longest = 0
    for quiet in silent[::10]:
        run = run + 1 if quiet else 0
        longest = max(longest, run)
    assert longest * 10 / RATE == pytest.approx(1.5, abs=0.1)
    assert answers[-1].usage.characters <= len(ssml)
    error = await service.refusal(ssml='<speak><lang xml:lang="fi">Hei vaan.</lang></speak>')
    assert (error.reason, error.field) == ("LANGUAGE_UNSUPPORTED", "ssml")


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({}, "text", "INVALID_ARGUMENT"),
        ({"text": ""}, "text", "EMPTY_TEXT"),
        ({"text": "  \n\t "}, "text", "EMPTY_TEXT"),
        ({"text": "..."}, "text", "EMPTY_TEXT"),
        ({"ssml": " "}, "ssml", "EMPTY_TEXT"),
        ({"ssml": "<speak></speak>"}, "ssml", None),
        ({"ssml": "<speak><audio src='x'/>Hi.</speak>"}, "ssml", None),
        ({"text": "x" * 10_001}, "text", "TEXT_TOO_LONG"),
        ({"text": "ab " * 350_000}, "text", "TEXT_TOO_LONG"),
        ({"ssml": "x" * 20_001}, "ssml", "TEXT_TOO_LONG"),
        ({"model": "gpt-9"}, "model", "MODEL_NOT_FOUND"),
        ({"voice": "nobody"}, "voice", "VOICE_NOT_FOUND"),
        ({"voice": "v" * 5_000}, "voice", "VOICE_NOT_FOUND"),
        ({"voice": "voice_" + "0" * 32}, "voice", "VOICE_NOT_FOUND"),
        ({"language": "english"}, "language", None),
        ({"language": "tlh"}, "language", "LANGUAGE_UNSUPPORTED"),
        ({"language": "en-au"}, "language", "LANGUAGE_UNSUPPORTED"),
        ({"speed": 0.24}, "speed", None),
        ({"speed": 4.01}, "speed", None),
        ({"speed": float("nan")}, "speed", None),
        ({"speed": 0.0}, "speed", None),
        ({"format": 9}, "format", None),
        ({"sample_rate": 7_999}, "sample_rate", None),
        ({"sample_rate": -1}, "sample_rate", None),
        ({"sample_rate": 48_001, "format": pb.AUDIO_FORMAT_PCM}, "sample_rate", None),
        ({"sample_rate": 16_000, "format": pb.AUDIO_FORMAT_OPUS}, "sample_rate", None),
        ({"bit_rate": 64_000, "format": pb.AUDIO_FORMAT_FLAC}, "bit_rate", None),
        ({"bit_rate": 64_000, "format": pb.AUDIO_FORMAT_WAV}, "bit_rate", None),
        ({"bit_rate": 64_000, "format": pb.AUDIO_FORMAT_PCM}, "bit_rate", None),
        ({"bit_rate": 0}, "bit_rate", None),
        ({"bit_rate": 320_001}, "bit_rate", None),
        ({"instructions": "i" * 4_097}, "instructions", None),
        ({"temperature": 0.0}, "temperature", None),
        ({"temperature": 1.01}, "temperature", None),
        ({"temperature": float("nan")}, "temperature", None),
    ],
)
async def test_what_can_not_be_honoured_is_refused_by_name(
    service: Running, fields: dict[str, object], field: str, reason: str | None
) -> None:
    given = fields if not fields or fields.keys() & {"text", "ssml"} else {"text": "Hi.", **fields}
    error = await service.refusal(**given)
    assert error.field == field
    assert error.reason == (reason or error.reason)
    assert len(error.message) < 300
    assert service.engine.started == 0


async def test_what_the_engine_does_not_do_is_refused_by_name(serve: Serve) -> None:
    async with serve(entries=[entry(draws=False, instructable=False)]) as service:
        for fields in ({"seed": 1}, {"temperature": 0.5}, {"instructions": "Sing."}):
            error = await service.refusal(text="Hi.", **fields)
            assert error.field in fields
        assert service.engine.started == 0


async def test_the_longest_text_is_taken(service: Running) -> None:
    text = ("A word and another. " * 500)[:10_000]
    call = service.call()(text=text, format=pb.AUDIO_FORMAT_PCM)
    first = await call.read()
    assert first.info.sentences > 100
    call.cancel()


def charged(usage: usage_pb2.Usage) -> tuple[int, float]:
    return usage.characters, usage.output_audio.ToTimedelta().total_seconds()


async def test_a_direct_caller_is_charged_what_was_spoken_within_the_bound(
    service: Running,
) -> None:
    request = pb.SynthesizeSpeechRequest(text=TEXT, speed=0.5)
    call = service.stub.SynthesizeSpeech(request, metadata=tenant_metadata())
    answers = [answer async for answer in call]
    booking = (await service.admission.closed(1))[0]
    assert (booking.outcome, booking.renewals) == ("COMPLETED", 0)
    assert booking.bound.characters == len(TEXT)
    assert booking.bound.output_audio.total_seconds() == pytest.approx(len(TEXT) * 0.3 + 2)
    assert booking.usage is not None
    assert (booking.usage.characters, booking.usage.output_audio.total_seconds()) == (
        charged(answers[-1].usage)
    )


@pytest.mark.parametrize(
    "fields", [{"text": " "}, {"text": "Hi.", "voice": "nobody"}, {"text": "x" * 10_001}]
)
async def test_a_refused_direct_caller_is_charged_nothing(
    service: Running, fields: dict[str, object]
) -> None:
    request = pb.SynthesizeSpeechRequest(**fields)  # type: ignore[arg-type]
    with pytest.raises(grpc.aio.AioRpcError):
        await service.stub.SynthesizeSpeech(request, metadata=tenant_metadata()).read()
    for booking in service.admission.bookings.values():
        await booking.closed.wait()
        assert booking.outcome == "REFUNDED"


async def test_a_model_that_was_unloaded_comes_back_with_its_next_use(service: Running) -> None:
    (model, *_) = service.engine.models()
    await service.engine.unload_model(model.id)
    assert service.engine.models()[0].state is ModelState.UNLOADED
    assert samples_of(await service.speak(text=TEXT, format=pb.AUDIO_FORMAT_PCM)).size
    assert service.engine.models()[0].state is ModelState.READY


async def test_an_engine_that_is_closed_is_unavailable_and_costs_nothing(
    service: Running,
) -> None:
    await service.engine.close()
    request = pb.SynthesizeSpeechRequest(text="Hi.")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.SynthesizeSpeech(request, metadata=tenant_metadata()).read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert from_rpc_error(caught.value).reason == "MODEL_NOT_READY"
    assert (await service.admission.closed(1))[0].outcome == "REFUNDED"
