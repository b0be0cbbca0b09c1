"""What the speech and voice endpoints take and give. No logic."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from atrium_gateway.api.audio_schema import ModelName

AudioFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
Text = Annotated[str, Meta(min_length=1)]
VoiceName = Annotated[str, Meta(max_length=128)]
LanguageTag = Annotated[str, Meta(pattern="^([A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*)?$")]
Speed = Annotated[float, Meta(ge=0.25, le=4)]
Instructions = Annotated[str, Meta(max_length=4096)]
Gender = Literal["", "female", "male", "neutral"]


class VoiceId(Struct, forbid_unknown_fields=True):
    """A voice as the newest clients may name it."""

    id: VoiceName


class SpeechRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/audio/speech`."""

    input: Text
    model: ModelName = ""
    voice: VoiceName | VoiceId = ""
    response_format: AudioFormat = "mp3"
    speed: Speed | None = None
    stream_format: Literal["audio", "sse"] = "audio"
    instructions: Instructions = ""


class SpeechTokens(Struct, frozen=True, kw_only=True):
    """What a speech consumed, in OpenAI's shape and in what is really counted.

    Attributes:
        input_tokens: Tokens that the engine counted; 0 for those that work without.
        output_tokens: Likewise.
        characters: Unicode code points that were turned into speech.
        seconds: Length of the audio.
    """

    input_tokens: int
    output_tokens: int
    total_tokens: int
    characters: int
    seconds: float


class SpeechAudioDelta(Struct, frozen=True):
    """Event of a speech as events: more of the file, in base64."""

    audio: bytes
    type: str = "speech.audio.delta"


class SpeechAudioDone(Struct, frozen=True):
    """Last event of a speech as events."""

    usage: SpeechTokens
    type: str = "speech.audio.done"


class TextToSpeechRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /api/text-to-speech`; exactly one of `text` and `ssml`."""

    text: Text | None = None
    ssml: Text | None = None
    voice: VoiceName = ""
    model: ModelName = ""
    language: LanguageTag = ""
    format: AudioFormat = "mp3"
    sample_rate: Annotated[int, Meta(ge=8000, le=48_000)] | None = None
    bit_rate: Annotated[int, Meta(ge=16_000, le=320_000)] | None = None
    speed: Speed | None = None
    instructions: Instructions = ""
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    temperature: Annotated[float, Meta(gt=0, le=1)] | None = None
    sentence_marks: bool = False
    stream: bool = False


class TextToSpeechInfo(Struct, frozen=True, kw_only=True):
    """What is known before the first audio; `sample_rate` in Hz."""

    model: str
    voice: str
    format: str
    sample_rate: int
    content_type: str
    sentences: int


class TextToSpeechMark(Struct, frozen=True, kw_only=True):
    """Where a sentence begins: in the input (code points) and in the audio (seconds)."""

    index: int
    start_character: int
    end_character: int
    start: float


class TextToSpeechAudio(Struct, frozen=True):
    """Event of a streamed answer: more of the file, in base64."""

    audio: bytes


class TextToSpeechUsage(Struct, frozen=True, kw_only=True):
    """What a request consumed; audio and times in seconds."""

    model: str
    engine: str
    characters: int
    output_audio: float
    queue_time: float
    inference_time: float


class TextToSpeechDone(Struct, frozen=True, kw_only=True):
    """Last event of a streamed answer; `duration` in seconds."""

    id: str
    duration: float
    usage: TextToSpeechUsage


class TextToSpeechAnswer(TextToSpeechInfo, frozen=True, kw_only=True):
    """Answer of `POST /api/text-to-speech` as JSON; `audio` is the file in base64."""

    id: str
    duration: float
    audio: bytes
    marks: list[TextToSpeechMark]
    usage: TextToSpeechUsage


class VoicesQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """Query of `GET /api/voices`."""

    model: ModelName = ""
    language: LanguageTag = ""


class VoiceForm(Struct, forbid_unknown_fields=True, kw_only=True):
    """Fields of `POST /api/voices`, beside the file."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    consent: bool = False
    model: ModelName = ""
    language: LanguageTag = ""
    gender: Gender = ""


class VoiceJson(VoiceForm, kw_only=True):
    """JSON body of `POST /api/voices`; `audio` is the recording in base64."""

    audio: bytes


class VoiceObject(Struct, frozen=True, kw_only=True):
    """A voice.

    Attributes:
        models: Models that speak with it.
        languages: BCP 47, its own first.
        license: Of its data; ``null`` if it was cloned.
        aliases: Other names that select it.
        cloned: True if it is the tenant's own.
        created_at: When it was cloned.
    """

    id: str
    name: str
    models: list[str]
    languages: list[str]
    gender: str | None
    license: str | None
    aliases: list[str]
    cloned: bool
    created_at: datetime | None


class VoiceList(Struct, frozen=True):
    """Answer of `GET /api/voices`: built-in ones, then the tenant's own, newest first."""

    voices: list[VoiceObject]


class VoiceDeleted(Struct, frozen=True):
    """Answer of `DELETE /api/voices/{id}`."""

    id: str
    deleted: bool = True
