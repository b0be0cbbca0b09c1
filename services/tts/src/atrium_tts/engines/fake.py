"""An engine without a model: a tone as long as the text, its pitch the voice's.

For contract, load and cancellation tests, here and in the gateway. It honours every
option, so that the wire can be tested to the last field, and the same request gives the
same samples.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime

import numpy as np
from pydantic import Field
from safetensors.numpy import load, save

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import ModelInfo
from atrium_common.engine_models import find_model
from atrium_common.engine_options import EngineOptions, read_options
from atrium_common.errors import InvalidArgument
from atrium_common.lifecycle import Lifecycle, weightless_host
from atrium_common.weights import WeightStore
from atrium_common.work import Serial
from atrium_tts.domain import Gender, SpeakRequest, Voice
from atrium_tts.engines.base import Samples

LANGUAGES = ("en-us", "en-gb", "de", "es", "fr", "ja", "zh")
"""What it claims to speak."""

PIECE_SECONDS = 0.25
"""Length of the pieces that it streams."""

_VOICES = (
    ("tone-a", "Ada", Gender.FEMALE, "en-us", ("alloy", "coral", "nova", "sage", "shimmer")),
    ("tone-b", "Bert", Gender.MALE, "en-us", ("ash", "echo", "onyx", "verse", "cedar")),
    ("tone-c", "Cleo", Gender.NEUTRAL, "en-gb", ("ballad", "fable", "marin")),
    ("tone-d", "Dora", Gender.FEMALE, "de", ()),
)


class FakeOptions(EngineOptions):
    """Options of the engine `fake`, with their defaults."""

    seconds_per_character: float = Field(default=0.05, gt=0)
    """Audio per character of text, at speed 1."""

    delay_seconds: float = Field(default=0.0, ge=0)
    """Pause before each utterance."""

    sample_rate: int = Field(default=24_000, ge=8_000, le=48_000)
    """Samples per second."""

    min_speed: float = Field(default=0.5, gt=0, le=1)
    """Slowest that it speaks by itself."""

    max_speed: float = Field(default=2.0, ge=1)
    """Fastest that it speaks by itself."""

    draws: bool = True
    """Whether it accepts `seed` and `temperature`."""

    instructable: bool = True
    """Whether it accepts `instructions`."""

    clones: bool = True
    """Whether it makes voices from recordings."""


class FakeEngine:
    """Hums.

    Attributes:
        started: Utterances that were begun, over all callers, for tests of cancellation.
        spoken: What was asked for, in order.
        streams: Utterances that are being spoken now.
    """

    name = "fake"
    scheduling = Serial()
    sentencewise = True

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        store: WeightStore | None = None,
        lifecycle: Lifecycle | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Reads the entries.

        Args:
            entries: The models, in catalogue order.
            store: Not used; there are no weights.
            lifecycle: Shared by the process's engines; see `ModelHost`.
            now: Aware UTC, for what `models` reports.

        Raises:
            CatalogueError: An entry has an option that this engine does not know.
        """
        self._options = {entry.id: read_options(FakeOptions, entry) for entry in entries}
        self._host = weightless_host(self.name, entries, lifecycle=lifecycle, now=now)
        self.started = 0
        self.streams = 0
        self.spoken: list[SpeakRequest] = []

    async def load(self) -> None:
        """Loads the models that are to be ready at start; see `ModelHost.load`."""
        await self._host.load()

    async def load_model(self, model: str) -> None:
        """Loads and verifies one model; see `ModelHost.load_model`."""
        await self._host.load_model(model)

    async def unload_model(self, model: str) -> None:
        """Frees a model's memory; see `ModelHost.unload_model`."""
        await self._host.unload_model(model)

    async def close(self) -> None:
        """Has nothing to free."""
        await self._host.close()

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order."""
        return self._host.models()

    async def verify(self, model: str) -> None:
        """Succeeds for a model that is loaded."""
        await self._host.verify(model)

    def voices(self) -> Sequence[Voice]:
        """Lists its four voices, for all of its models."""
        return tuple(
            Voice(
                id=identifier,
                name=name,
                models=tuple(self._options),
                languages=(language,),
                gender=gender,
                license="CC0-1.0",
                aliases=aliases,
            )
            for identifier, name, gender, language, aliases in _VOICES
        )

    def languages(self, model: str) -> Sequence[str]:
        """Lists `LANGUAGES`."""
        self._find(model)
        return LANGUAGES

    def sample_rate(self, model: str) -> int:
        """Returns the option's."""
        return self._find(model).sample_rate

    def speeds(self, model: str) -> tuple[float, float]:
        """Returns the options'."""
        options = self._find(model)
        return options.min_speed, options.max_speed

    def check_ready(self, model: str) -> None:
        """Refuses a model that has failed; see `ModelHost.check`."""
        self._host.check(model)

    def check(self, request: SpeakRequest) -> None:
        """Refuses what its options say that it does not do."""
        options = self._find(request.model)
        if not options.draws and request.seed is not None:
            raise InvalidArgument(f"{request.model} draws nothing at random.", field="seed")
        if not options.draws and request.temperature is not None:
            raise InvalidArgument(f"{request.model} draws nothing at random.", field="temperature")
        if not options.instructable and request.instructions:
            raise InvalidArgument(
                f"{request.model} does not follow instructions.", field="instructions"
            )

    async def speak(self, request: SpeakRequest) -> AsyncGenerator[Samples, None]:
        """Streams a tone in pieces of `PIECE_SECONDS`."""
        options = self._find(request.model)
        async with self._host.use(request.model):
            self.started += 1
            self.spoken.append(request)
            self.streams += 1
            try:
                await asyncio.sleep(options.delay_seconds)
                samples = _tone(request, options)
                size = int(PIECE_SECONDS * options.sample_rate)
                for start in range(0, len(samples), size):
                    yield samples[start : start + size]
                    await asyncio.sleep(0)
            finally:
                self.streams -= 1

    def clones(self, model: str) -> bool:
        """Says what the option says."""
        return self._find(model).clones

    async def clone(self, model: str, samples: Samples, sample_rate: int) -> bytes:
        """Keeps a digest of the recording; it sets the pitch."""
        self._find(model)
        digest = hashlib.sha256(samples.tobytes() + sample_rate.to_bytes(4, "little")).digest()
        return save({"digest": np.frombuffer(digest, np.uint8)})

    def _find(self, model: str) -> FakeOptions:
        return find_model(self._options, model)


def pitch(request: SpeakRequest) -> float:
    """Returns the tone's frequency in Hz, 200 to 455, by the voice and what else is asked."""
    facts = (request.voice.id, request.seed, request.temperature, request.instructions)
    if request.latents is not None:
        number = int(load(request.latents)["digest"][0])
    elif facts[1:] == (None, None, ""):
        number = [voice[0] for voice in _VOICES].index(request.voice.id) * 50
    else:
        number = hashlib.sha256(repr(facts).encode()).digest()[0]
    return 200.0 + number


def _tone(request: SpeakRequest, options: FakeOptions) -> Samples:
    seconds = len(request.text) * options.seconds_per_character / request.speed
    time = np.arange(round(seconds * options.sample_rate)) / options.sample_rate
    tone: Samples = (0.3 * np.sin(2 * np.pi * pitch(request) * time)).astype(np.float32)
    return tone
