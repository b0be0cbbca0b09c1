"""Client of the tts service: speech as it is made, and the voices that it is made with."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC
from typing import BinaryIO, Final

import grpc.aio

from atrium.common.v1 import media_pb2
from atrium.tts.v1 import tts_pb2, tts_pb2_grpc
from atrium_common.wire import duration_from_proto
from atrium_gateway.upstreams.calls import Credentials, SingleCall, StreamedCall, unmetered
from atrium_gateway.upstreams.port import Caller
from atrium_gateway.upstreams.synthesis import Info, Mark, NewVoice, Speech, Step, Voice
from atrium_gateway.upstreams.uploads import pieces

SERVICE = "atrium.tts.v1.SpeechSynthesisService"
SYNTHESIZE = f"/{SERVICE}/SynthesizeSpeech"
CREATE_VOICE = f"/{SERVICE}/CreateVoice"
VOICES_SECONDS = 10.0
"""Longest time for listing or deleting voices."""

SpeechCall = StreamedCall[tts_pb2.SynthesizeSpeechResponse, Step]
VoiceCall = SingleCall[tts_pb2.CreateVoiceResponse, Voice]

_FORMATS: Final = {
    "mp3": tts_pb2.AUDIO_FORMAT_MP3,
    "opus": tts_pb2.AUDIO_FORMAT_OPUS,
    "aac": tts_pb2.AUDIO_FORMAT_AAC,
    "flac": tts_pb2.AUDIO_FORMAT_FLAC,
    "wav": tts_pb2.AUDIO_FORMAT_WAV,
    "pcm": tts_pb2.AUDIO_FORMAT_PCM,
}
_FORMAT_NAMES: Final = {value: name for name, value in _FORMATS.items()}
_GENDERS: Final = {
    "": tts_pb2.VOICE_GENDER_UNSPECIFIED,
    "female": tts_pb2.VOICE_GENDER_FEMALE,
    "male": tts_pb2.VOICE_GENDER_MALE,
    "neutral": tts_pb2.VOICE_GENDER_NEUTRAL,
}
_GENDER_NAMES: Final = {value: name for name, value in _GENDERS.items()}


class TtsUpstream:
    """The tts service, over one channel."""

    def __init__(self, channel: grpc.aio.Channel, credentials: Credentials) -> None:
        self._stub = tts_pb2_grpc.SpeechSynthesisServiceStub(channel)
        self._credentials = credentials

    def synthesize(self, job: Speech, caller: Caller) -> SpeechCall:
        """Starts a speech; its audio comes as it is made."""
        call = self._stub.SynthesizeSpeech(
            _request(job),
            metadata=self._credentials.metadata(caller),
            timeout=caller.seconds_left(),
        )
        return StreamedCall(call, _step)

    async def voices(
        self, *, model: str, language: str, tenant: str, request_id: str
    ) -> Sequence[Voice]:
        """Lists the voices that the tenant may use.

        Args:
            model: Catalogue id; ``""`` lists those of all models.
            language: BCP 47; ``""`` lists those of all languages.
            tenant: Whose own voices are listed beside the built-in ones.
            request_id: Joins the log lines of all processes.

        Raises:
            Unavailable: The service does not answer.
        """
        reply = await unmetered(
            self._stub.ListVoices(
                tts_pb2.ListVoicesRequest(model=model, language=language),
                metadata=self._credentials.plain(tenant, request_id),
                timeout=VOICES_SECONDS,
            )
        )
        return [_voice(voice) for voice in reply.voices]

    def create_voice(self, voice: NewVoice, audio: BinaryIO, caller: Caller) -> VoiceCall:
        """Makes a voice; `audio` is read to its end, from where it stands."""
        call = self._stub.CreateVoice(
            _upload(voice, audio),
            metadata=self._credentials.metadata(caller),
            timeout=caller.seconds_left(),
        )
        return SingleCall(call, _created)

    async def delete_voice(self, voice: str, *, tenant: str, request_id: str) -> None:
        """Deletes a voice of the tenant.

        Raises:
            NotFound: It is built-in, another tenant's, or there is none.
            Unavailable: The service does not answer.
        """
        await unmetered(
            self._stub.DeleteVoice(
                tts_pb2.DeleteVoiceRequest(voice=voice),
                metadata=self._credentials.plain(tenant, request_id),
                timeout=VOICES_SECONDS,
            )
        )


def _request(job: Speech) -> tts_pb2.SynthesizeSpeechRequest:
    request = tts_pb2.SynthesizeSpeechRequest(
        model=job.model,
        voice=job.voice,
        language=job.language,
        speed=job.speed,
        format=_FORMATS[job.format],
        sample_rate=job.sample_rate,
        bit_rate=job.bit_rate,
        instructions=job.instructions,
        seed=job.seed,
        temperature=job.temperature,
        sentence_marks=job.sentence_marks,
    )
    if job.ssml:
        request.ssml = job.input
    else:
        request.text = job.input
    return request


def _step(message: tts_pb2.SynthesizeSpeechResponse) -> Step:
    which = message.WhichOneof("step")
    if which == "chunk":
        return message.chunk.data
    if which == "mark":
        mark = message.mark
        return Mark(
            index=mark.index,
            start_character=mark.start_character,
            end_character=mark.end_character,
            start=duration_from_proto(mark.start),
        )
    return _info(message.info) if which == "info" else None


def _info(info: tts_pb2.SpeechInfo) -> Info:
    return Info(
        model=info.model,
        voice=info.voice,
        format=_FORMAT_NAMES[info.format],
        sample_rate=info.sample_rate,
        content_type=info.content_type,
        sentences=info.sentences,
    )


async def _upload(voice: NewVoice, audio: BinaryIO) -> AsyncIterator[tts_pb2.CreateVoiceRequest]:
    config = tts_pb2.VoiceConfig(
        model=voice.model,
        name=voice.name,
        language=voice.language,
        consent=voice.consent,
        gender=_GENDERS[voice.gender],
    )
    yield tts_pb2.CreateVoiceRequest(config=config)
    async for piece in pieces(audio):
        if isinstance(piece, media_pb2.MediaChunk):
            yield tts_pb2.CreateVoiceRequest(chunk=piece)
        else:
            yield tts_pb2.CreateVoiceRequest(end=piece)


def _created(message: tts_pb2.CreateVoiceResponse) -> Voice:
    return _voice(message.voice)


def _voice(voice: tts_pb2.Voice) -> Voice:
    made = voice.HasField("create_time")
    return Voice(
        id=voice.id,
        name=voice.name,
        models=list(voice.models),
        languages=list(voice.languages),
        gender=_GENDER_NAMES.get(voice.gender, ""),
        license=voice.license,
        aliases=list(voice.aliases),
        cloned=voice.cloned,
        created_at=voice.create_time.ToDatetime(tzinfo=UTC) if made else None,
    )
