"""`POST /api/text-to-speech`: the suite's own speech, with everything it knows."""

from dataclasses import dataclass, field

import msgspec

from atrium_common.domain import Usage
from atrium_common.errors import InvalidArgument, Unavailable
from atrium_gateway.api.decode import decode
from atrium_gateway.api.events import EventStream
from atrium_gateway.api.exchange import JSON, Exchange
from atrium_gateway.api.speech_schema import (
    TextToSpeechAnswer,
    TextToSpeechAudio,
    TextToSpeechDone,
    TextToSpeechInfo,
    TextToSpeechMark,
    TextToSpeechRequest,
    TextToSpeechUsage,
)
from atrium_gateway.api.synthesis import resolve, send_audio, speech_job
from atrium_gateway.auth.principal import Principal
from atrium_gateway.pipeline import Job
from atrium_gateway.ratelimit import limit_headers
from atrium_gateway.upstreams.synthesis import Info, Mark, Speech, Step

_ENCODER = msgspec.json.Encoder()


async def create_text_to_speech(exchange: Exchange) -> None:
    """Says a text or SSML: as a file, as JSON, or as events."""
    principal = await exchange.authenticate()
    request = decode(await exchange.json_body(), TextToSpeechRequest)
    as_json = _wants_json(exchange)
    _check(request, as_json=as_json)
    speech = Speech(
        model=resolve(exchange, request.model),
        input=request.text or request.ssml or "",
        ssml=request.ssml is not None,
        voice=request.voice,
        language=request.language,
        speed=request.speed,
        format=request.format,
        sample_rate=request.sample_rate or 0,
        bit_rate=request.bit_rate,
        instructions=request.instructions,
        seed=request.seed,
        temperature=request.temperature,
        sentence_marks=request.sentence_marks,
    )
    job = speech_job(exchange, speech, field="ssml" if speech.ssml else "text")
    async with exchange.until_disconnect():
        if request.stream:
            await _stream(exchange, principal, job)
        elif as_json:
            await _answer(exchange, principal, job)
        else:
            await send_audio(exchange, principal, job)


def _wants_json(exchange: Exchange) -> bool:
    """Whether JSON is asked for by name; browsers' libraries ask for it beside `*/*`."""
    accept = exchange.headers.get("accept", "").lower()
    return JSON in accept and "*/*" not in accept and "audio/" not in accept


def _check(request: TextToSpeechRequest, *, as_json: bool) -> None:
    if request.text is None and request.ssml is None:
        raise InvalidArgument(
            "Missing required parameter: 'text'.", reason="MISSING_REQUIRED_PARAMETER", field="text"
        )
    if request.text is not None and request.ssml is not None:
        raise InvalidArgument("Send 'text' or 'ssml', not both.", field="ssml")
    if request.sentence_marks and not (request.stream or as_json):
        raise InvalidArgument(
            f"An audio file has no room for 'sentence_marks': send 'stream' or 'Accept: {JSON}'.",
            field="sentence_marks",
        )


@dataclass(slots=True)
class _Spoken:
    """What was said so far."""

    info: Info | None = None
    marks: list[Mark] = field(default_factory=list)
    audio: bytearray = field(default_factory=bytearray)

    def add(self, step: Step) -> None:
        """Takes the next message."""
        if isinstance(step, bytes):
            self.audio += step
        elif isinstance(step, Mark):
            self.marks.append(step)
        elif isinstance(step, Info):
            self.info = step


async def _answer(exchange: Exchange, principal: Principal, job: Job[Step]) -> None:
    spoken = _Spoken()
    async with exchange.gateway.pipeline.run(
        principal, job, request_id=exchange.record.request_id
    ) as run:
        async for step in run:
            spoken.add(step)
    if spoken.info is None:
        raise Unavailable("The service gave no answer.")
    answer = TextToSpeechAnswer(
        id=run.reservation.id,
        **msgspec.structs.asdict(_info(spoken.info)),
        duration=run.usage.output_audio.total_seconds(),
        audio=bytes(spoken.audio),
        marks=[_mark(mark) for mark in spoken.marks],
        usage=_usage(run.usage),
    )
    await exchange.reply(_ENCODER.encode(answer), headers=limit_headers(run.reservation.limits))


async def _stream(exchange: Exchange, principal: Principal, job: Job[Step]) -> None:
    async with EventStream(exchange, named=True) as events:
        async with exchange.gateway.pipeline.run(
            principal, job, request_id=exchange.record.request_id
        ) as run:
            async for step in run:
                if step is None:
                    continue
                await events.open(run.reservation.limits)
                if isinstance(step, bytes):
                    await events.send(_ENCODER.encode(TextToSpeechAudio(step)), event="audio")
                elif isinstance(step, Mark):
                    await events.send(_ENCODER.encode(_mark(step)), event="mark")
                else:
                    await events.send(_ENCODER.encode(_info(step)), event="info")
        done = TextToSpeechDone(
            id=run.reservation.id,
            duration=run.usage.output_audio.total_seconds(),
            usage=_usage(run.usage),
        )
        await events.open(run.reservation.limits)
        await events.send(_ENCODER.encode(done), event="done")
        await events.close()


def _info(info: Info) -> TextToSpeechInfo:
    return TextToSpeechInfo(
        model=info.model,
        voice=info.voice,
        format=info.format,
        sample_rate=info.sample_rate,
        content_type=info.content_type,
        sentences=info.sentences,
    )


def _mark(mark: Mark) -> TextToSpeechMark:
    return TextToSpeechMark(
        index=mark.index,
        start_character=mark.start_character,
        end_character=mark.end_character,
        start=mark.start.total_seconds(),
    )


def _usage(usage: Usage) -> TextToSpeechUsage:
    return TextToSpeechUsage(
        model=usage.model,
        engine=usage.engine,
        characters=usage.characters,
        output_audio=usage.output_audio.total_seconds(),
        queue_time=usage.queue_time.total_seconds(),
        inference_time=usage.inference_time.total_seconds(),
    )
