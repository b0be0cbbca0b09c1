"""What the catalogue says of a provider's speech model, and the voices that follow."""

from typing import Annotated

from pydantic import Field, model_validator

from atrium_common.engine_options import EngineOptions
from atrium_common.openai_upstream import UpstreamOptions
from atrium_tts.domain import Gender

OPENAI_VOICES = (
    ("alloy", Gender.NEUTRAL),
    ("ash", Gender.MALE),
    ("ballad", Gender.MALE),
    ("coral", Gender.FEMALE),
    ("echo", Gender.MALE),
    ("fable", Gender.NEUTRAL),
    ("onyx", Gender.MALE),
    ("nova", Gender.FEMALE),
    ("sage", Gender.FEMALE),
    ("shimmer", Gender.FEMALE),
    ("verse", Gender.MALE),
)
"""OpenAI's; its makers state no gender, this is how they are heard."""

# fmt: off
OPENAI_LANGUAGES = (
    "en", "af", "ar", "az", "be", "bg", "bs", "ca", "cs", "cy", "da", "de", "el", "es", "et",
    "fa", "fi", "fr", "gl", "he", "hi", "hr", "hu", "hy", "id", "is", "it", "ja", "kk", "kn",
    "ko", "lt", "lv", "mi", "mk", "mr", "ms", "ne", "nl", "no", "pl", "pt", "ro", "ru", "sk",
    "sl", "sr", "sv", "sw", "ta", "th", "tl", "tr", "uk", "ur", "vi", "zh",
)
# fmt: on
"""Those of Whisper, as OpenAI states for its speech; it hears them from the text."""

_Name = Annotated[str, Field(min_length=1, max_length=64)]


class VoiceOptions(EngineOptions):
    """One voice of a provider."""

    id: _Name
    """The provider's name of it."""

    name: str = ""
    """For people; unset takes the id."""

    languages: tuple[str, ...] = ()
    """BCP 47, its own first; unset takes the model's."""

    gender: Gender = Gender.UNKNOWN
    """As it is heard."""

    license: str = ""
    """Licence of its data, where the provider states one."""

    aliases: tuple[_Name, ...] = ()
    """Other names that select it."""


class OpenAISpeechOptions(UpstreamOptions):
    """Options of a provider's speech model in the catalogue."""

    voices: tuple[VoiceOptions, ...] = tuple(
        VoiceOptions(id=name, name=name.capitalize(), gender=gender)
        for name, gender in OPENAI_VOICES
    )
    """The voices, the default first."""

    languages: tuple[str, ...] = Field(default=OPENAI_LANGUAGES, min_length=1)
    """BCP 47 tags that it speaks. None is sent: a provider hears it from the text."""

    sample_rate: int = Field(default=24_000, ge=8_000, le=48_000)
    """Samples per second of its PCM."""

    max_characters: int = Field(default=4_096, ge=1)
    """Longest input, markup included."""

    min_speed: float = Field(default=0.25, gt=0, le=1)
    """Slowest that it speaks by itself; set both to 1 for a model that ignores speed."""

    max_speed: float = Field(default=4.0, ge=1)
    """Fastest that it speaks by itself."""

    follows_instructions: bool = False
    """Whether it follows `instructions`, as gpt-4o-mini-tts does and tts-1 does not."""

    @model_validator(mode="after")
    def _voices_differ(self) -> "OpenAISpeechOptions":
        names = [name for voice in self.voices for name in (voice.id, *voice.aliases)]
        if not names or len(names) != len(set(names)):
            raise ValueError("voices: at least one, each name once")
        return self
