"""Transcription in the engine's terms; what `convert.py` makes of the wire."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from atrium_common.domain import Usage


class Task(StrEnum):
    """Text in the spoken language, or in English."""

    TRANSCRIBE = "transcribe"
    TRANSLATE = "translate"


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptionJob:
    """Everything that decides a transcription. `model` is a catalogue id.

    Ranges are those of `atrium.stt.v1.TranscriptionConfig`, checked by `convert.py`.

    Attributes:
        language: ISO 639-1 (or ``"yue"``), ``None`` to detect.
        temperature: ``None`` starts at 0 and falls back upwards.
        voice_activity_detection: Leave out stretches without speech.
    """

    model: str
    language: str | None = None
    task: Task = Task.TRANSCRIBE
    prompt: str = ""
    hotwords: Sequence[str] = ()
    temperature: float | None = None
    beam_size: int = 5
    word_timestamps: bool = False
    voice_activity_detection: bool = True
    condition_on_previous_text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptionInfo:
    """Known once the audio is decoded and its language settled."""

    language: str
    language_probability: float
    duration: timedelta
    speech_duration: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word, its times from the start of the audio, its confidence 0 to 1."""

    start: timedelta
    end: timedelta
    text: str
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of speech; `text` keeps its leading space, so that joining works."""

    index: int
    start: timedelta
    end: timedelta
    text: str
    words: Sequence[Word] = ()
    average_logprob: float
    no_speech_probability: float
    compression_ratio: float
    temperature: float
    tokens: Sequence[int] = ()
    seek: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptionEvent:
    """One step: info first, then segments; each with the cumulative usage."""

    step: TranscriptionInfo | Segment | None
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveJob:
    """Everything that decides a live transcription.

    Attributes:
        transcription: As for a recording; voice activity detection is always on.
        sample_rate: Of the 16-bit little-endian mono PCM that comes in, 8000 to 48000.
        end_silence: Silence that ends a segment, 100 ms to 5 s.
        partial_results: Report segments while they are spoken.
    """

    transcription: TranscriptionJob
    sample_rate: int
    end_silence: timedelta = timedelta(milliseconds=500)
    partial_results: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechStarted:
    """Somebody began to speak; `start` is from the beginning of the audio."""

    index: int
    start: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechStopped:
    """The speech of a segment has ended; `end` is from the beginning of the audio."""

    index: int
    end: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechDismissed:
    """What began as speech was none: no segment of this index comes."""

    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialSegment:
    """A segment while it is spoken.

    Attributes:
        segment: Its text is what is certain, and only grows from partial to partial.
        tentative: What seems to follow; it may change.
    """

    segment: Segment
    tentative: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalSegment:
    """A segment that will not change any more, and its language."""

    segment: Segment
    language: str
    language_probability: float


LiveStep = SpeechStarted | SpeechStopped | SpeechDismissed | PartialSegment | FinalSegment


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEvent:
    """One step of a live answer, or none, with the cumulative usage."""

    step: LiveStep | None
    usage: Usage
