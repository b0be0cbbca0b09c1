"""Kokoro in ONNX Runtime, on a CPU; the registry loads this lazily.

One device thread says one utterance at a time, so the engine is serial: a `WorkQueue` of
one slot stands in front of it.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import ModelInfo
from atrium_common.errors import InvalidArgument
from atrium_common.lifecycle import Lifecycle, ModelHandling, ModelHost
from atrium_common.weights import WeightStore
from atrium_common.work import CancelToken, DeviceThread, Serial
from atrium_tts.domain import SpeakRequest, Voice
from atrium_tts.engines.base import Samples
from atrium_tts.engines.kokoro.espeak import Espeak
from atrium_tts.engines.kokoro.model import BLANK, SAMPLE_RATE, KokoroModel, silence
from atrium_tts.engines.kokoro.options import KokoroOptions
from atrium_tts.engines.kokoro.phonemes import ESPEAK_VOICES, phonemes, pieces
from atrium_tts.engines.kokoro.voices import voices

_SPEEDS = (0.5, 2.0)


class KokoroEngine:
    """Serves Kokoro-82M in its ONNX form."""

    name = "kokoro"
    scheduling = Serial()
    sentencewise = True

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        store: WeightStore,
        lifecycle: Lifecycle | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Reads the entries; loads no weights.

        Args:
            entries: The models, in catalogue order.
            store: Where their files are.
            lifecycle: Shared by the process's engines; see `ModelHost`.
            now: Aware UTC, for what `models` reports.

        Raises:
            CatalogueError: An entry has an option that this engine does not know.
        """
        self._options = {entry.id: KokoroOptions.of(entry) for entry in entries}
        self._voices = tuple(voices(tuple(self._options), frozenset(ESPEAK_VOICES)))
        self._ids = frozenset(voice.id for voice in self._voices)
        self._store = store
        self._espeak = Espeak()
        self._thread = DeviceThread("kokoro")
        handling = ModelHandling(
            open_model=lambda entry: self._thread.call(self._open, entry),
            warm_up=lambda _, network: self._thread.call(self._say_yes, network),
            close_model=lambda *_: self._thread.flush(),
        )
        self._host: ModelHost[KokoroModel] = ModelHost(
            self.name, entries, handling, lifecycle=lifecycle, now=now
        )

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
        """Stops running work at its next piece and frees memory."""
        self._thread.close()
        self._espeak.close()
        await self._host.close()

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order."""
        return self._host.models()

    async def verify(self, model: str) -> None:
        """Says "yes", behind what runs now."""
        await self._host.verify(model)

    def voices(self) -> Sequence[Voice]:
        """Lists the voices of the languages that it speaks."""
        return self._voices

    def languages(self, model: str) -> Sequence[str]:
        """Lists the languages: those for which words become phonemes well."""
        self._host.entry(model)
        return tuple(ESPEAK_VOICES)

    def sample_rate(self, model: str) -> int:
        """24,000."""
        self._host.entry(model)
        return SAMPLE_RATE

    def speeds(self, model: str) -> tuple[float, float]:
        """The range that the network was made for."""
        self._host.entry(model)
        return _SPEEDS

    def check_ready(self, model: str) -> None:
        """Refuses a model that has failed; see `ModelHost.check`."""
        self._host.check(model)

    def check(self, request: SpeakRequest) -> None:
        """Refuses what Kokoro can't do.

        Raises:
            NotFound: The model is not of this engine.
            InvalidArgument: `field` names what it can't do.
        """
        model = self._host.entry(request.model).id
        if request.language not in ESPEAK_VOICES:
            raise InvalidArgument(
                f"{model} does not speak {request.language!r}; it speaks "
                f"{', '.join(ESPEAK_VOICES)}.",
                field="language",
            )
        if request.voice.id not in self._ids or request.latents is not None:
            raise InvalidArgument(
                f"{model} does not speak with the voice {request.voice.id!r}.", field="voice"
            )
        if request.seed is not None:
            raise InvalidArgument(f"{model} draws nothing at random.", field="seed")
        if request.temperature is not None:
            raise InvalidArgument(f"{model} has no temperature.", field="temperature")
        if request.instructions:
            raise InvalidArgument(f"{model} takes no instructions.", field="instructions")

    async def speak(self, request: SpeakRequest) -> AsyncIterator[Samples]:
        """Streams an utterance: as one piece, or several if it is very long.

        Closing the iterator stops the work at the next piece.
        """
        self.check(request)
        async with self._host.use(request.model) as network:
            audio = self._thread.stream(lambda token: self._speak(network, request, token))
            async with aclosing(audio):
                async for samples in audio:
                    yield samples

    def _open(self, entry: ModelEntry) -> KokoroModel:
        """In the device thread."""
        threads = self._options[entry.id].threads_to_use
        return KokoroModel(self._store.ensure(entry), threads=threads)

    def _say_yes(self, network: KokoroModel) -> None:
        """In the device thread."""
        network.speak(
            phonemes("yes", "en-us", self._espeak), voice=self._voices[0].id, speed=_SPEEDS[1]
        )

    def _speak(
        self, network: KokoroModel, request: SpeakRequest, token: CancelToken
    ) -> Iterator[Samples]:
        """In the device thread."""
        parts = pieces(phonemes(request.text, request.language, self._espeak))
        if not parts:
            yield silence(BLANK / request.speed)
        for part in parts:
            token.raise_if_cancelled()
            yield network.speak(part, voice=request.voice.id, speed=request.speed)
