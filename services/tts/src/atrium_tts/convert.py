"""`atrium.tts.v1` to and from the domain: every field honoured or refused by name.

`servicer.py` calls this; ranges are those of the proto's comments. What depends on the
model, the voice or the format is checked in `speech_plan.py`.
"""

import re
from dataclasses import dataclass

from atrium.common.v1 import media_pb2
from atrium.tts.v1 import tts_pb2 as pb
from atrium_common.errors import InvalidArgument, NotFound, PermissionDenied
from atrium_common.wire import duration_to_proto, timestamp_to_proto, usage_to_proto
from atrium_tts.domain import (
    AudioFormat,
    Gender,
    SentenceMark,
    SpeechEnd,
    SpeechEvent,
    SpeechInfo,
    SpeechJob,
    Voice,
    VoiceOrder,
)

MAX_CHARACTERS = 10_000
MAX_SSML_CHARACTERS = 20_000
MAX_INSTRUCTIONS = 4_096
"""Characters."""
MAX_NAME = 64
"""Characters of a voice's name."""
MAX_VOICE_ID = 128

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8}){0,3}")
_FORMATS: dict[int, AudioFormat] = {
    pb.AUDIO_FORMAT_UNSPECIFIED: AudioFormat.MP3,
    pb.AUDIO_FORMAT_MP3: AudioFormat.MP3,
    pb.AUDIO_FORMAT_OPUS: AudioFormat.OPUS,
    pb.AUDIO_FORMAT_AAC: AudioFormat.AAC,
    pb.AUDIO_FORMAT_FLAC: AudioFormat.FLAC,
    pb.AUDIO_FORMAT_WAV: AudioFormat.WAV,
    pb.AUDIO_FORMAT_PCM: AudioFormat.PCM,
}
_FORMATS_BACK = {
    AudioFormat.MP3: pb.AUDIO_FORMAT_MP3,
    AudioFormat.OPUS: pb.AUDIO_FORMAT_OPUS,
    AudioFormat.AAC: pb.AUDIO_FORMAT_AAC,
    AudioFormat.FLAC: pb.AUDIO_FORMAT_FLAC,
    AudioFormat.WAV: pb.AUDIO_FORMAT_WAV,
    AudioFormat.PCM: pb.AUDIO_FORMAT_PCM,
}
_GENDERS: dict[int, Gender] = {
    pb.VOICE_GENDER_UNSPECIFIED: Gender.UNKNOWN,
    pb.VOICE_GENDER_FEMALE: Gender.FEMALE,
    pb.VOICE_GENDER_MALE: Gender.MALE,
    pb.VOICE_GENDER_NEUTRAL: Gender.NEUTRAL,
}
_GENDERS_BACK = {
    Gender.UNKNOWN: pb.VOICE_GENDER_UNSPECIFIED,
    Gender.FEMALE: pb.VOICE_GENDER_FEMALE,
    Gender.MALE: pb.VOICE_GENDER_MALE,
    Gender.NEUTRAL: pb.VOICE_GENDER_NEUTRAL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLimits:
    """Longest input, in Unicode code points."""

    characters: int = MAX_CHARACTERS
    ssml_characters: int = MAX_SSML_CHARACTERS


def job_from_proto(
    request: pb.SynthesizeSpeechRequest, *, model: str, limits: TextLimits
) -> SpeechJob:
    """Reads a request.

    Args:
        request: As the caller sent it.
        model: Catalogue id that its `model` resolved to.
        limits: Longest input.

    Raises:
        InvalidArgument: A field is out of its range; `field` names it. A text that is too
            long has the reason ``TEXT_TOO_LONG``.
    """
    ssml = request.WhichOneof("input") == "ssml"
    return SpeechJob(
        model=model,
        input=_input(request, limits),
        ssml=ssml,
        voice=_voice(request.voice),
        language=language_of(request.language, field="language"),
        speed=_speed(request),
        format=_format(request.format),
        sample_rate=request.sample_rate,
        bit_rate=request.bit_rate if request.HasField("bit_rate") else None,
        instructions=_instructions(request.instructions),
        seed=request.seed if request.HasField("seed") else None,
        temperature=_temperature(request),
        sentence_marks=request.sentence_marks,
    )


def voice_request(config: pb.VoiceConfig) -> VoiceOrder:
    """Reads what voice to make.

    Raises:
        PermissionDenied: The speaker's consent is not declared.
        InvalidArgument: A field is out of its range; `field` is ``"config.<name>"``.
    """
    if not config.consent:
        raise PermissionDenied(
            "The speaker must have agreed to this use of their voice: set consent.",
            reason="CONSENT_REQUIRED",
            field="config.consent",
        )
    name = config.name.strip()
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidArgument(
            f"name has 1 to {MAX_NAME} printable characters.", field="config.name"
        )
    gender = _GENDERS.get(config.gender)
    if gender is None:
        raise InvalidArgument(f"There is no gender {config.gender}.", field="config.gender")
    return VoiceOrder(
        name=name,
        language=language_of(config.language, field="config.language"),
        gender=gender,
    )


def language_of(value: str, *, field: str) -> str:
    """Reads a BCP 47 tag, in lower case; ``""`` stays."""
    language = value.lower()
    if language and not _LANGUAGE.fullmatch(language):
        raise InvalidArgument("language is a BCP 47 tag like 'en' or 'en-us'.", field=field)
    return language


def event_to_proto(event: SpeechEvent) -> pb.SynthesizeSpeechResponse:
    """Writes one step of the answer with what was consumed so far."""
    usage = usage_to_proto(event.usage)
    match event.step:
        case bytes():
            chunk = media_pb2.MediaChunk(data=event.step)
            return pb.SynthesizeSpeechResponse(chunk=chunk, usage=usage)
        case SpeechInfo():
            return pb.SynthesizeSpeechResponse(info=_info(event.step), usage=usage)
        case SentenceMark():
            return pb.SynthesizeSpeechResponse(mark=_mark(event.step), usage=usage)
        case SpeechEnd():
            end = media_pb2.MediaEnd(sha256=event.step.sha256, size=event.step.size)
            return pb.SynthesizeSpeechResponse(end=end, usage=usage)
        case None:
            return pb.SynthesizeSpeechResponse(usage=usage)


def voice_to_proto(voice: Voice) -> pb.Voice:
    """Writes a voice."""
    message = pb.Voice(
        id=voice.id,
        name=voice.name,
        models=voice.models,
        languages=voice.languages,
        gender=_GENDERS_BACK[voice.gender],
        license=voice.license,
        aliases=voice.aliases,
        cloned=voice.cloned,
    )
    if voice.created_at is not None:
        message.create_time.CopyFrom(timestamp_to_proto(voice.created_at))
    return message


def _info(info: SpeechInfo) -> pb.SpeechInfo:
    return pb.SpeechInfo(
        model=info.model,
        voice=info.voice,
        format=_FORMATS_BACK[info.format],
        sample_rate=info.sample_rate,
        content_type=info.content_type,
        sentences=info.sentences,
    )


def _mark(mark: SentenceMark) -> pb.SentenceMark:
    return pb.SentenceMark(
        index=mark.index,
        start_character=mark.start_character,
        end_character=mark.end_character,
        start=duration_to_proto(mark.start),
    )


def _input(request: pb.SynthesizeSpeechRequest, limits: TextLimits) -> str:
    field = request.WhichOneof("input")
    if field is None:
        raise InvalidArgument("One of text and ssml is required.", field="text")
    value = request.ssml if field == "ssml" else request.text
    most = limits.ssml_characters if field == "ssml" else limits.characters
    if len(value) > most:
        raise InvalidArgument(
            f"{field} has {len(value)} characters, at most {most} are taken.",
            reason="TEXT_TOO_LONG",
            field=field,
        )
    if not value.strip():
        raise InvalidArgument(f"{field} is blank.", reason="EMPTY_TEXT", field=field)
    return value


def _voice(value: str) -> str:
    if len(value) > MAX_VOICE_ID:
        raise NotFound("There is no such voice.", reason="VOICE_NOT_FOUND", field="voice")
    return value


def _speed(request: pb.SynthesizeSpeechRequest) -> float:
    if not request.HasField("speed"):
        return 1.0
    if not 0.25 <= request.speed <= 4.0:  # false for NaN
        raise InvalidArgument("speed is from 0.25 to 4.", field="speed")
    return request.speed


def _format(value: int) -> AudioFormat:
    audio_format = _FORMATS.get(value)
    if audio_format is None:
        raise InvalidArgument(f"There is no format {value}.", field="format")
    return audio_format


def _instructions(value: str) -> str:
    if len(value) > MAX_INSTRUCTIONS:
        raise InvalidArgument(
            f"instructions have at most {MAX_INSTRUCTIONS} characters.", field="instructions"
        )
    return value.strip()


def _temperature(request: pb.SynthesizeSpeechRequest) -> float | None:
    if not request.HasField("temperature"):
        return None
    if not 0.0 < request.temperature <= 1.0:  # false for NaN
        raise InvalidArgument("temperature is above 0 and at most 1.", field="temperature")
    return request.temperature
