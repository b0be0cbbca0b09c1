"""`POST /api/speech-to-text`: the suite's own transcription, with everything it knows."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from atrium_common.domain import Usage
from atrium_common.errors import MediaError
from atrium_gateway.api.audio_schema import (
    SpeechAnswer,
    SpeechDone,
    SpeechForm,
    SpeechInfo,
    SpeechJson,
    SpeechSegment,
    SpeechUsage,
    SpeechWord,
)
from atrium_gateway.api.decode import convert, decode
from atrium_gateway.api.events import EventStream
from atrium_gateway.api.exchange import JSON, Exchange
from atrium_gateway.api.transcripts import Transcript, resolve, transcription_job
from atrium_gateway.api.uploads import Upload, form_upload, media_type, raw_upload
from atrium_gateway.auth.principal import Principal
from atrium_gateway.pipeline import Job
from atrium_gateway.ratelimit import limit_headers
from atrium_gateway.upstreams.speech import Info, Recording, Segment, Step

_ENCODER = msgspec.json.Encoder()


async def create_speech_to_text(exchange: Exchange) -> None:
    """Transcribes or translates audio that comes in a form, as the body, or in JSON."""
    principal = await exchange.authenticate()
    async with _received(exchange) as (upload, form):
        recording = Recording(
            model=resolve(exchange, form.model),
            language=form.language,
            translate=form.task == "translate",
            prompt=form.prompt,
            hotwords=form.hotwords,
            temperature=form.temperature,
            beam_size=form.beam_size,
            word_timestamps=form.word_timestamps,
            voice_activity_detection=form.voice_activity_detection,
            condition_on_previous_text=form.condition_on_previous_text,
        )
        job = transcription_job(exchange, recording, upload)
        async with exchange.until_disconnect():
            if form.stream:
                await _stream(exchange, principal, job)
            else:
                await _answer(exchange, principal, job)


@asynccontextmanager
async def _received(exchange: Exchange) -> AsyncIterator[tuple[Upload, SpeechForm]]:
    kind = media_type(exchange)
    if kind == JSON:
        body = decode(await exchange.json_body(), SpeechJson)
        if not body.audio:
            raise MediaError("The audio is empty.", field="audio")
        yield Upload(io.BytesIO(body.audio), len(body.audio), {}), body
    elif kind == "multipart/form-data":
        async with form_upload(exchange) as upload:
            yield upload, convert(upload.fields, SpeechForm)
    else:
        async with raw_upload(exchange) as upload:
            yield upload, convert(upload.fields, SpeechForm)


async def _answer(exchange: Exchange, principal: Principal, job: Job[Step]) -> None:
    transcript = Transcript()
    async with exchange.gateway.pipeline.run(
        principal, job, request_id=exchange.record.request_id
    ) as run:
        async for step in run:
            transcript.add(step)
    info = _info(transcript.known(), job.model)
    answer = SpeechAnswer(
        id=run.reservation.id,
        model=info.model,
        language=info.language,
        language_probability=info.language_probability,
        duration=info.duration,
        speech_duration=info.speech_duration,
        text=transcript.text,
        segments=[_segment(segment) for segment in transcript.segments],
        usage=_usage(run.usage),
    )
    await exchange.reply(_ENCODER.encode(answer), headers=limit_headers(run.reservation.limits))


async def _stream(exchange: Exchange, principal: Principal, job: Job[Step]) -> None:
    transcript = Transcript()
    async with EventStream(exchange, named=True) as events:
        async with exchange.gateway.pipeline.run(
            principal, job, request_id=exchange.record.request_id
        ) as run:
            async for step in run:
                transcript.add(step)
                await events.open(run.reservation.limits)
                if isinstance(step, Info):
                    await events.send(_ENCODER.encode(_info(step, job.model)), event="info")
                elif isinstance(step, Segment):
                    await events.send(_ENCODER.encode(_segment(step)), event="segment")
        done = SpeechDone(id=run.reservation.id, text=transcript.text, usage=_usage(run.usage))
        await events.open(run.reservation.limits)
        await events.send(_ENCODER.encode(done), event="done")
        await events.close()


def _info(info: Info, model: str) -> SpeechInfo:
    return SpeechInfo(
        model=model,
        language=info.language,
        language_probability=info.language_probability,
        duration=info.duration.total_seconds(),
        speech_duration=info.speech_duration.total_seconds(),
    )


def _segment(segment: Segment) -> SpeechSegment:
    return SpeechSegment(
        index=segment.index,
        start=segment.start.total_seconds(),
        end=segment.end.total_seconds(),
        text=segment.text,
        words=[
            SpeechWord(
                text=word.text,
                start=word.start.total_seconds(),
                end=word.end.total_seconds(),
                probability=word.probability,
            )
            for word in segment.words
        ],
        average_logprob=segment.average_logprob,
        no_speech_probability=segment.no_speech_probability,
        compression_ratio=segment.compression_ratio,
        temperature=segment.temperature,
    )


def _usage(usage: Usage) -> SpeechUsage:
    return SpeechUsage(
        model=usage.model,
        engine=usage.engine,
        input_audio=usage.input_audio.total_seconds(),
        queue_time=usage.queue_time.total_seconds(),
        inference_time=usage.inference_time.total_seconds(),
    )
