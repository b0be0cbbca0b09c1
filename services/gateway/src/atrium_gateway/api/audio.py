"""`POST /v1/audio/transcriptions` and `/v1/audio/translations`."""

import asyncio
from collections.abc import Sequence

import msgspec

from atrium_common.errors import InvalidArgument
from atrium_gateway.api import subtitles
from atrium_gateway.api.audio_schema import (
    JsonAnswer,
    TextDelta,
    TextDone,
    TranscriptionForm,
    TranslationForm,
    VerboseAnswer,
    VerboseSegment,
    VerboseWord,
)
from atrium_gateway.api.cues import make_cues
from atrium_gateway.api.decode import convert
from atrium_gateway.api.events import EventStream
from atrium_gateway.api.exchange import JSON, Exchange
from atrium_gateway.api.transcripts import (
    Transcript,
    TranscriptRun,
    duration_usage,
    resolve,
    transcription_job,
)
from atrium_gateway.api.uploads import form_upload
from atrium_gateway.auth.principal import Principal
from atrium_gateway.pipeline import Job
from atrium_gateway.ratelimit import limit_headers
from atrium_gateway.upstreams.speech import Recording, Segment, Step

_ENCODER = msgspec.json.Encoder()


async def create_transcription(exchange: Exchange) -> None:
    """Writes down what is said, in the language that is spoken."""
    principal = await exchange.authenticate()
    async with form_upload(exchange) as upload:
        form = convert(upload.fields, TranscriptionForm)
        _check(form)
        recording = Recording(
            model=resolve(exchange, form.model),
            language=form.language,
            prompt=form.prompt,
            hotwords=form.keywords,
            temperature=form.temperature,
            word_timestamps="word" in form.timestamp_granularities or _is_subtitles(form),
        )
        job = transcription_job(exchange, recording, upload)
        async with exchange.until_disconnect():
            if form.stream:
                await _stream(exchange, principal, job)
            else:
                wanted = form.timestamp_granularities or ["segment"]
                await _answer(exchange, principal, job, form, wanted=wanted, task="transcribe")


async def create_translation(exchange: Exchange) -> None:
    """Writes down in English what is said in any language."""
    principal = await exchange.authenticate()
    async with form_upload(exchange) as upload:
        form = convert(upload.fields, TranslationForm)
        recording = Recording(
            model=resolve(exchange, form.model),
            translate=True,
            prompt=form.prompt,
            temperature=form.temperature,
            word_timestamps=_is_subtitles(form),
        )
        job = transcription_job(exchange, recording, upload)
        async with exchange.until_disconnect():
            await _answer(exchange, principal, job, form, wanted=["segment"], task="translate")


def _is_subtitles(form: TranslationForm) -> bool:
    """Whether the answer is cut into cues, by the times of the words."""
    return form.response_format in ("srt", "vtt")


def _check(form: TranscriptionForm) -> None:
    if form.timestamp_granularities and form.response_format != "verbose_json":
        raise InvalidArgument(
            "'timestamp_granularities' needs response_format 'verbose_json'.",
            field="timestamp_granularities",
        )
    if form.stream and form.response_format not in ("json", "text"):
        raise InvalidArgument(
            f"'stream' gives text; it can't give '{form.response_format}'.", field="stream"
        )


async def _answer(
    exchange: Exchange,
    principal: Principal,
    job: Job[Step],
    form: TranslationForm,
    *,
    wanted: Sequence[str],
    task: str,
) -> None:
    transcript = Transcript()
    async with exchange.gateway.pipeline.run(
        principal, job, request_id=exchange.record.request_id
    ) as run:
        async for step in run:
            transcript.add(step)
    if _is_subtitles(form):  # hours of words take a while
        body, content_type = await asyncio.to_thread(_subtitles, transcript, form.response_format)
    else:
        body, content_type = _rendered(transcript, run, form.response_format, wanted, task)
    await exchange.reply(
        body, content_type=content_type, headers=limit_headers(run.reservation.limits)
    )


async def _stream(exchange: Exchange, principal: Principal, job: Job[Step]) -> None:
    transcript = Transcript()
    async with EventStream(exchange) as events:
        async with exchange.gateway.pipeline.run(
            principal, job, request_id=exchange.record.request_id
        ) as run:
            async for step in run:
                transcript.add(step)
                await events.open(run.reservation.limits)
                if isinstance(step, Segment):
                    first = len(transcript.segments) == 1
                    text = step.text.lstrip() if first else step.text
                    await events.send(_ENCODER.encode(TextDelta(text)))
        done = TextDone(transcript.text, duration_usage(run.usage))
        await events.open(run.reservation.limits)
        await events.send(_ENCODER.encode(done))
        await events.close(done=True)


def _subtitles(transcript: Transcript, shape: str) -> tuple[bytes, str]:
    cues = make_cues(transcript.segments)
    if shape == "srt":
        return subtitles.srt(cues).encode(), "application/x-subrip; charset=utf-8"
    return subtitles.vtt(cues).encode(), "text/vtt; charset=utf-8"


def _rendered(
    transcript: Transcript, run: TranscriptRun, shape: str, wanted: Sequence[str], task: str
) -> tuple[bytes, str]:
    usage = duration_usage(run.usage)
    if shape == "json":
        return _ENCODER.encode(JsonAnswer(transcript.text, usage)), JSON
    if shape == "text":
        return f"{transcript.text}\n".encode(), "text/plain; charset=utf-8"
    info = transcript.known()
    answer = VerboseAnswer(
        task=task,
        language=info.language,
        duration=info.duration.total_seconds(),
        text=transcript.text,
        usage=usage,
        segments=[_segment(segment) for segment in transcript.segments]
        if "segment" in wanted
        else msgspec.UNSET,
        words=_words(transcript) if "word" in wanted else msgspec.UNSET,
    )
    return _ENCODER.encode(answer), JSON


def _words(transcript: Transcript) -> list[VerboseWord]:
    return [
        VerboseWord(word.text.strip(), word.start.total_seconds(), word.end.total_seconds())
        for segment in transcript.segments
        for word in segment.words
    ]


def _segment(segment: Segment) -> VerboseSegment:
    return VerboseSegment(
        id=segment.index,
        seek=segment.seek,
        start=segment.start.total_seconds(),
        end=segment.end.total_seconds(),
        text=segment.text,
        tokens=list(segment.tokens),
        temperature=segment.temperature,
        avg_logprob=segment.average_logprob,
        compression_ratio=segment.compression_ratio,
        no_speech_prob=segment.no_speech_probability,
    )
