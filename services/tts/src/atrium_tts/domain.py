"""Speech in the engine's terms; what `convert.py` makes of the wire."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from atrium_common.domain import Usage


class AudioFormat(StrEnum):
    """How the audio is encoded; the values are OpenAI's names."""

    MP3 = "mp3"
    OPUS = "opus"
    AAC = "aac"
    FLAC = "flac"
    WAV = "wav"
    PCM = "pcm"


class Gender(StrEnum):
    """Gender that a voice is heard as."""

    UNKNOWN = ""
    FEMALE = "female"
    MALE = "male"
    NEUTRAL = "neutral"


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """One voice.

    Attributes:
        id: What selects it, e.g. ``"af_heart"``.
        name: For people.
        models: Catalogue ids of the models that speak with it.
        languages: BCP 47, its own first.
        gender: As it is heard.
        license: SPDX id or name of the licence of its data; ``""`` if cloned.
        aliases: Other names that select it, such as OpenAI's.
        cloned: True if a tenant made it from a recording.
        created_at: When it was cloned, aware UTC.
    """

    id: str
    name: str
    models: Sequence[str]
    languages: Sequence[str]
    gender: Gender = Gender.UNKNOWN
    license: str = ""
    aliases: Sequence[str] = ()
    cloned: bool = False
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceOrder:
    """A voice that a tenant wants made; `language` is BCP 47, ``""`` leaves it open."""

    name: str
    language: str = ""
    gender: Gender = Gender.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechJob:
    """Everything that decides a speech. `model` is a catalogue id.

    Ranges are those of `atrium.tts.v1.SynthesizeSpeechRequest`, checked by `convert.py`.

    Attributes:
        input: Plain text, or SSML if `ssml`.
        voice: Id or alias; ``""`` takes the model's default for the language.
        language: BCP 47; ``""`` takes the voice's own.
        sample_rate: Hz; 0 takes the model's own.
        bit_rate: Bits per second; ``None`` takes the format's default.
        sentence_marks: Tell where each sentence begins.
    """

    model: str
    input: str
    ssml: bool = False
    voice: str = ""
    language: str = ""
    speed: float = 1.0
    format: AudioFormat = AudioFormat.MP3
    sample_rate: int = 0
    bit_rate: int | None = None
    instructions: str = ""
    seed: int | None = None
    temperature: float | None = None
    sentence_marks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One sentence (or the whole text, for engines that want it whole), ready to be said.

    Attributes:
        text: What is said; no markup, never blank.
        characters: Code points of the input that it counts for; over all utterances of
            an input never more than the input has.
        start: Where it begins in the input, in code points.
        end: Where it ends in the input, exclusive.
        language: BCP 47; ``""`` means the job's.
        rate: Factor on the job's speed.
        pause_before: Silence before it.
        pause_after: Silence after it.
    """

    text: str
    characters: int
    start: int
    end: int
    language: str = ""
    rate: float = 1.0
    pause_before: timedelta = timedelta()
    pause_after: timedelta = timedelta()


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakRequest:
    """What an engine is asked to say at once: one utterance, with everything settled.

    Attributes:
        model: Catalogue id.
        voice: The voice; never an alias.
        latents: What the engine's `clone` made, for a cloned voice; else ``None``.
        text: What is said.
        language: BCP 47, never empty.
        speed: 1 is the voice's own; within the engine's `speeds`.
        seed: Repeats what is drawn at random; ``None`` draws anew.
        temperature: Liveliness; ``None`` takes the model's own.
        instructions: How to speak, in words; ``""`` for none.
    """

    model: str
    voice: Voice
    latents: bytes | None = None
    text: str
    language: str
    speed: float = 1.0
    seed: int | None = None
    temperature: float | None = None
    instructions: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechInfo:
    """Known before the first audio; `sample_rate` in Hz."""

    model: str
    voice: str
    format: AudioFormat
    sample_rate: int
    content_type: str
    sentences: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceMark:
    """Where a sentence begins: in the input (code points) and in the audio."""

    index: int
    start_character: int
    end_character: int
    start: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechEnd:
    """All audio was sent: its SHA-256 (32 raw bytes) and its size in bytes."""

    sha256: bytes
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechEvent:
    """One step: info, then marks and encoded audio, then the end; each with the usage so far.

    A step of ``None`` brings only usage: a sentence was begun.
    """

    step: SpeechInfo | SentenceMark | bytes | SpeechEnd | None
    usage: Usage
