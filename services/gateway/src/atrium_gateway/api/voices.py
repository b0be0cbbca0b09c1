"""`/api/voices`: the voices that a tenant may use, and those it makes of recordings."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import msgspec

from atrium_common.domain import Capability, Usage
from atrium_common.errors import MediaError
from atrium_gateway.api.decode import convert, decode
from atrium_gateway.api.exchange import JSON, Exchange
from atrium_gateway.api.speech_schema import (
    VoiceDeleted,
    VoiceForm,
    VoiceJson,
    VoiceList,
    VoiceObject,
    VoicesQuery,
)
from atrium_gateway.api.uploads import Upload, form_upload, media_type
from atrium_gateway.auth.principal import Principal
from atrium_gateway.pipeline import Job
from atrium_gateway.ratelimit import limit_headers
from atrium_gateway.upstreams.synthesis import NewVoice, Voice
from atrium_gateway.upstreams.tts import CREATE_VOICE

_ENCODER = msgspec.json.Encoder()
LONGEST_RECORDING = timedelta(seconds=30)
"""What the service takes by default; a longer recording is refused there, uncharged."""


async def list_voices(exchange: Exchange) -> None:
    """Lists built-in voices and the tenant's own."""
    principal = await _allowed(exchange)
    query = convert(dict(exchange.query_params), VoicesQuery)
    gateway = exchange.gateway
    voices = await gateway.tts.voices(
        model=gateway.resolve(query.model, Capability.SPEECH).id if query.model else "",
        language=query.language,
        tenant=principal.tenant,
        request_id=exchange.record.request_id,
    )
    answer = VoiceList([_object(voice) for voice in voices])
    await exchange.reply(_ENCODER.encode(answer))


async def create_voice(exchange: Exchange) -> None:
    """Makes a voice of the tenant from a recording; its length is charged."""
    principal = await exchange.authenticate()
    async with _received(exchange) as (upload, form):
        job = _job(exchange, upload, form)
        async with exchange.until_disconnect():
            async with exchange.gateway.pipeline.run(
                principal, job, request_id=exchange.record.request_id
            ) as run:
                made = [voice async for voice in run]
            await exchange.reply(
                _ENCODER.encode(_object(made[0])),
                status=201,
                headers=limit_headers(run.reservation.limits),
            )


async def delete_voice(exchange: Exchange) -> None:
    """Deletes a voice of the tenant."""
    principal = await _allowed(exchange)
    voice = exchange.path_params["voice"]
    await exchange.gateway.tts.delete_voice(
        voice, tenant=principal.tenant, request_id=exchange.record.request_id
    )
    await exchange.reply(_ENCODER.encode(VoiceDeleted(voice)))


async def _allowed(exchange: Exchange) -> Principal:
    """Checks what admission checks elsewhere: listing and deleting are not metered."""
    principal = await exchange.authenticate()
    principal.demand(Capability.SPEECH)
    return principal


@asynccontextmanager
async def _received(exchange: Exchange) -> AsyncIterator[tuple[Upload, VoiceForm]]:
    if media_type(exchange) != JSON:
        async with form_upload(exchange) as upload:
            yield upload, convert(upload.fields, VoiceForm)
        return
    body = decode(await exchange.json_body(), VoiceJson)
    if not body.audio:
        raise MediaError("The audio is empty.", field="audio")
    try:
        yield Upload(io.BytesIO(body.audio), len(body.audio), {}), body
    except MediaError as err:
        err.field = "audio"
        raise


def _job(exchange: Exchange, upload: Upload, form: VoiceForm) -> Job[Voice]:
    gateway = exchange.gateway
    # Without a name the service takes the first model that clones; the answer's usage
    # says which one that was.
    entry = gateway.resolve(form.model, Capability.SPEECH)
    exchange.record.model = entry.id
    voice = NewVoice(
        name=form.name,
        model=entry.id if form.model else "",
        language=form.language,
        gender=form.gender,
        consent=form.consent,
    )
    length = min(upload.length_bound(), LONGEST_RECORDING)
    return Job(
        capability=Capability.SPEECH,
        model=entry.id,
        method=CREATE_VOICE,
        estimate=Usage(model=entry.id, input_audio=length, estimated=True),
        call=lambda caller: gateway.tts.create_voice(voice, upload.file, caller),
    )


def _object(voice: Voice) -> VoiceObject:
    return VoiceObject(
        id=voice.id,
        name=voice.name,
        models=list(voice.models),
        languages=list(voice.languages),
        gender=voice.gender or None,
        license=voice.license or None,
        aliases=list(voice.aliases),
        cloned=voice.cloned,
        created_at=voice.created_at,
    )
