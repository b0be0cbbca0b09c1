"""`POST /v1/audio/speech`: speech as OpenAI's clients ask for it."""

import msgspec

from atrium_common.domain import Usage
from atrium_common.errors import InvalidArgument
from atrium_gateway.api.decode import decode
from atrium_gateway.api.events import EventStream
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.speech_schema import (
    SpeechAudioDelta,
    SpeechAudioDone,
    SpeechRequest,
    SpeechTokens,
)
from atrium_gateway.api.synthesis import resolve, send_audio, speech_job
from atrium_gateway.auth.principal import Principal
from atrium_gateway.pipeline import Job
from atrium_gateway.upstreams.synthesis import Speech, Step

_ENCODER = msgspec.json.Encoder()
_NAMES = {"text": "input", "format": "response_format"}
"""Fields of the service under the names that they have here."""


async def create_speech(exchange: Exchange) -> None:
    """Says a text; the answer is the file as it is made, or events with its pieces."""
    principal = await exchange.authenticate()
    request = decode(await exchange.json_body(), SpeechRequest)
    voice = request.voice
    speech = Speech(
        model=resolve(exchange, request.model),
        input=request.input,
        voice=voice if isinstance(voice, str) else voice.id,
        speed=request.speed,
        format=request.response_format,
        instructions=request.instructions,
    )
    job = speech_job(exchange, speech, field="input")
    try:
        async with exchange.until_disconnect():
            if request.stream_format == "sse":
                await _stream(exchange, principal, job)
            else:
                await send_audio(exchange, principal, job)
    except InvalidArgument as err:
        err.field = _NAMES.get(err.field or "", err.field)
        raise


async def _stream(exchange: Exchange, principal: Principal, job: Job[Step]) -> None:
    async with EventStream(exchange) as events:
        async with exchange.gateway.pipeline.run(
            principal, job, request_id=exchange.record.request_id
        ) as run:
            async for step in run:
                if isinstance(step, bytes):
                    await events.open(run.reservation.limits)
                    await events.send(_ENCODER.encode(SpeechAudioDelta(step)))
        await events.open(run.reservation.limits)
        await events.send(_ENCODER.encode(SpeechAudioDone(_tokens(run.usage))))
        await events.close()


def _tokens(usage: Usage) -> SpeechTokens:
    return SpeechTokens(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        characters=usage.characters,
        seconds=usage.output_audio.total_seconds(),
    )
