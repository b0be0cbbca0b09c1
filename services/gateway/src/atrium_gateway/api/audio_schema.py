"""What the audio endpoints take and give. No logic."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Language = Annotated[str, Meta(pattern="^([a-z]{2}|yue)$")]
Temperature = Annotated[float, Meta(ge=0, le=1)]
Hotwords = Annotated[list[Annotated[str, Meta(min_length=1, max_length=64)]], Meta(max_length=64)]
Format = Literal["json", "text", "srt", "vtt", "verbose_json"]
ModelName = Annotated[str, Meta(max_length=128)]


class TranslationForm(Struct, forbid_unknown_fields=True, kw_only=True):
    """Fields of `POST /v1/audio/translations`, beside the file."""

    model: ModelName = ""
    prompt: str = ""
    response_format: Format = "json"
    temperature: Temperature | None = None


class TranscriptionForm(TranslationForm, kw_only=True):
    """Fields of `POST /v1/audio/transcriptions`, beside the file."""

    language: Language | Literal[""] = ""
    stream: bool = False
    timestamp_granularities: list[Literal["word", "segment"]] = []
    keywords: Hotwords = []
    # Accepted without effect: voice activity detection is on anyway.
    chunking_strategy: Literal["auto"] | None = None


class SpeechForm(Struct, forbid_unknown_fields=True, kw_only=True):
    """Parameters of `POST /api/speech-to-text`, in a form, a query or JSON."""

    model: ModelName = ""
    language: Language | Literal[""] = ""
    task: Literal["transcribe", "translate"] = "transcribe"
    prompt: str = ""
    hotwords: Hotwords = []
    temperature: Temperature | None = None
    beam_size: Annotated[int, Meta(ge=1, le=10)] | None = None
    word_timestamps: bool = False
    voice_activity_detection: bool | None = None
    condition_on_previous_text: bool = False
    stream: bool = False


class SpeechJson(SpeechForm, kw_only=True):
    """JSON body of `POST /api/speech-to-text`; `audio` is the file in base64."""

    audio: bytes


class DurationUsage(Struct, frozen=True):
    """What a transcription consumed, in whole seconds of audio, rounded up."""

    seconds: int
    type: str = "duration"


class JsonAnswer(Struct, frozen=True):
    """Answer in the format `json`."""

    text: str
    usage: DurationUsage


class VerboseSegment(Struct, frozen=True, kw_only=True):
    """A segment in the format `verbose_json`; times in seconds."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class VerboseWord(Struct, frozen=True):
    """A word in the format `verbose_json`; times in seconds."""

    word: str
    start: float
    end: float


class VerboseAnswer(Struct, frozen=True, kw_only=True):
    """Answer in the format `verbose_json`."""

    task: str
    language: str
    duration: float
    text: str
    usage: DurationUsage
    segments: list[VerboseSegment] | UnsetType = UNSET
    words: list[VerboseWord] | UnsetType = UNSET


class TextDelta(Struct, frozen=True):
    """Event of a streamed transcription: more text."""

    delta: str
    type: str = "transcript.text.delta"


class TextDone(Struct, frozen=True):
    """Last event of a streamed transcription: the whole text."""

    text: str
    usage: DurationUsage
    type: str = "transcript.text.done"


class SpeechWord(Struct, frozen=True, kw_only=True):
    """A word of `/api/speech-to-text`; times in seconds, probability 0 to 1."""

    text: str
    start: float
    end: float
    probability: float


class SpeechSegment(Struct, frozen=True, kw_only=True):
    """A segment of `/api/speech-to-text`; times in seconds."""

    index: int
    start: float
    end: float
    text: str
    words: list[SpeechWord]
    average_logprob: float
    no_speech_probability: float
    compression_ratio: float
    temperature: float


class SpeechInfo(Struct, frozen=True, kw_only=True):
    """What is known before the first segment; durations in seconds."""

    model: str
    language: str
    language_probability: float
    duration: float
    speech_duration: float


class SpeechUsage(Struct, frozen=True, kw_only=True):
    """What a request consumed, in seconds."""

    model: str
    engine: str
    input_audio: float
    queue_time: float
    inference_time: float


class SpeechAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `POST /api/speech-to-text`."""

    id: str
    model: str
    language: str
    language_probability: float
    duration: float
    speech_duration: float
    text: str
    segments: list[SpeechSegment]
    usage: SpeechUsage


class SpeechDone(Struct, frozen=True, kw_only=True):
    """Last event of a streamed answer."""

    id: str
    text: str
    usage: SpeechUsage
