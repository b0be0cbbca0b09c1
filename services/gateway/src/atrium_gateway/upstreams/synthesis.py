"""What a speech or a voice is asked for with and gives back, in the gateway's own terms."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec


class Speech(msgspec.Struct, frozen=True, kw_only=True):
    """What to say and how; as `atrium.tts.v1.SynthesizeSpeechRequest`.

    Attributes:
        model: Catalogue id.
        input: Plain text, or SSML if `ssml`.
        voice: Id or alias; ``""`` takes the model's default for the language.
        language: BCP 47; ``""`` takes the voice's own.
        format: ``"mp3"``, ``"opus"``, ``"aac"``, ``"flac"``, ``"wav"`` or ``"pcm"``.
        sample_rate: Hz; 0 takes the model's own.
        bit_rate: Bits per second; ``None`` takes the format's default.
        sentence_marks: Tell where each sentence begins.
    """

    model: str
    input: str
    ssml: bool = False
    voice: str = ""
    language: str = ""
    speed: float | None = None
    format: str = "mp3"
    sample_rate: int = 0
    bit_rate: int | None = None
    instructions: str = ""
    seed: int | None = None
    temperature: float | None = None
    sentence_marks: bool = False


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """Known before the first audio; `sample_rate` in Hz, `content_type` a media type."""

    model: str
    voice: str
    format: str
    sample_rate: int
    content_type: str
    sentences: int


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Where a sentence begins: in the input (code points) and in the audio."""

    index: int
    start_character: int
    end_character: int
    start: timedelta


Step = Info | Mark | bytes | None
"""One message of a speech; bytes are the next of the file, ``None`` brings only usage."""


class Voice(msgspec.Struct, frozen=True, kw_only=True):
    """A voice that a tenant may use.

    Attributes:
        models: Catalogue ids of the models that speak with it.
        languages: BCP 47, its own first.
        gender: ``"female"``, ``"male"``, ``"neutral"``, or ``""`` if not stated.
        license: Of its data; ``""`` if cloned.
        aliases: Other names that select it, such as OpenAI's.
        cloned: True if it belongs to the tenant.
        created_at: When it was cloned, aware UTC.
    """

    id: str
    name: str
    models: Sequence[str]
    languages: Sequence[str]
    gender: str
    license: str
    aliases: Sequence[str]
    cloned: bool
    created_at: datetime | None


class NewVoice(msgspec.Struct, frozen=True, kw_only=True):
    """What to make of a recording; as `atrium.tts.v1.VoiceConfig`.

    Attributes:
        model: Catalogue id; ``""`` takes the default of those that clone.
        consent: The speaker has agreed to this use of their voice.
    """

    name: str
    model: str = ""
    language: str = ""
    gender: str = ""
    consent: bool = False
