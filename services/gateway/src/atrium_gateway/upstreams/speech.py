"""What the stt service is asked for and gives back, in the gateway's own terms."""

from collections.abc import Sequence
from datetime import timedelta

import msgspec


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """What to make of a recording; as `atrium.stt.v1.TranscriptionConfig`.

    Attributes:
        model: Catalogue id.
        language: ISO 639-1 (or ``"yue"``), ``""`` to detect.
        translate: True for English text, else text in the language spoken.
    """

    model: str
    language: str = ""
    translate: bool = False
    prompt: str = ""
    hotwords: Sequence[str] = ()
    temperature: float | None = None
    beam_size: int | None = None
    word_timestamps: bool = False
    voice_activity_detection: bool | None = None
    condition_on_previous_text: bool = False


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """A word, its times from the beginning of the audio, its confidence 0 to 1."""

    start: timedelta
    end: timedelta
    text: str
    probability: float


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of speech; joining the segments' texts gives the whole."""

    index: int
    start: timedelta
    end: timedelta
    text: str
    words: Sequence[Word]
    average_logprob: float
    no_speech_probability: float
    compression_ratio: float
    temperature: float
    tokens: Sequence[int]
    seek: int


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """Known once the audio is decoded and its language settled."""

    language: str
    language_probability: float
    duration: timedelta
    speech_duration: timedelta


Step = Info | Segment | None
"""One message of a transcription; ``None`` brings only usage."""


class LiveSpeech(msgspec.Struct, frozen=True, kw_only=True):
    """What to make of live audio; as `atrium.stt.v1.LiveTranscriptionConfig`.

    Attributes:
        recording: What a recording of it would be asked for.
        sample_rate: Samples per second of 16-bit little-endian mono PCM, 8000 to 48000.
        end_silence: Silence that ends a segment; ``None`` takes the service's default.
    """

    recording: Recording
    sample_rate: int
    end_silence: timedelta | None = None


class SpeechStarted(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody began to speak; `start` is from the beginning of the turn's audio."""

    index: int
    start: timedelta


class SpeechStopped(msgspec.Struct, frozen=True, kw_only=True):
    """The speech of a segment has ended; `end` is from the beginning of the turn's audio."""

    index: int
    end: timedelta


class SpeechDismissed(msgspec.Struct, frozen=True, kw_only=True):
    """What began as speech was none: the segment of this index does not come."""

    index: int


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a segment; a final one does not change any more.

    The text of a partial segment only grows, and its final begins with it.
    """

    segment: Segment
    final: bool
    language: str = ""


LiveStep = SpeechStarted | SpeechStopped | SpeechDismissed | Heard | None
"""One message of live audio; ``None`` brings only usage."""
