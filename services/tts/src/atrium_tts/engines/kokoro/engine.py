"""Kokoro in ONNX Runtime, on a CPU; the registry loads this lazily.

One device thread says one utterance at a time, so the engine is serial: a `WorkQueue` of
one slot stands in front of it.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import ModelInfo, ModelState
from atrium_common.engine_models import find_model, load_each, model_info
from atrium_common.errors import Conflict, InvalidArgument, Unavailable
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


@dataclass(slots=True)
class _Model:
    """A model of the catalogue and where it stands."""

    entry: ModelEntry
    options: KokoroOptions
    state: ModelState = ModelState.UNLOADED
    network: KokoroModel | None = None
    verified_at: datetime | None = None
    detail: str = ""
    users: int = 0


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
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Reads the entries; loads no weights.

        Args:
            entries: The models, in catalogue order.
            store: Where their files are.
            now: Aware UTC, for `ModelInfo.verified_at`.

        Raises:
            CatalogueError: An entry has an option that this engine does not know.
        """
        self._models = {e.id: _Model(e, KokoroOptions.of(e)) for e in entries}
        self._voices = tuple(voices(tuple(self._models), frozenset(ESPEAK_VOICES)))
        self._ids = frozenset(voice.id for voice in self._voices)
        self._store = store
        self._now = now
        self._espeak = Espeak()
        self._thread = DeviceThread("kokoro")

    async def load(self) -> None:
        """Loads every model.

        A model that fails stands as FAILED while others serve.

        Raises:
            AtriumError: No model could be loaded; the first one's error.
        """
        await load_each(self._models, self.load_model)

    async def load_model(self, model: str) -> None:
        """Loads and verifies one model; does nothing if it is ready.

        Raises:
            NotFound: The model is not of this engine.
            Unavailable: It can't be loaded; the reason stands in `ModelInfo.detail`.
        """
        await self._thread.call(self._load, self._find(model))

    async def unload_model(self, model: str) -> None:
        """Frees a model's memory.

        Raises:
            Conflict: Requests run on it.
        """
        known = self._find(model)
        if known.users:
            raise Conflict(f"{known.users} requests are running on {model}.", reason="MODEL_BUSY")
        known.network, known.state, known.verified_at = None, ModelState.UNLOADED, None

    async def close(self) -> None:
        """Stops running work at its next piece and frees memory."""
        self._thread.close()
        self._espeak.close()
        for known in self._models.values():
            known.network, known.state = None, ModelState.UNLOADED

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order."""
        return [
            model_info(
                known.entry,
                engine=self.name,
                state=known.state,
                verified_at=known.verified_at,
                detail=known.detail,
            )
            for known in self._models.values()
        ]

    async def verify(self, model: str) -> None:
        """Says "yes", behind what runs now."""
        await self._thread.call(self._verify, self._find(model))

    def voices(self) -> Sequence[Voice]:
        """Lists the voices of the languages that it speaks."""
        return self._voices

    def languages(self, model: str) -> Sequence[str]:
        """Lists the languages: those for which words become phonemes well."""
        self._find(model)
        return tuple(ESPEAK_VOICES)

    def sample_rate(self, model: str) -> int:
        """24,000."""
        self._find(model)
        return SAMPLE_RATE

    def speeds(self, model: str) -> tuple[float, float]:
        """The range that the network was made for."""
        self._find(model)
        return _SPEEDS

    def check(self, request: SpeakRequest) -> None:
        """Refuses what Kokoro can't do.

        Raises:
            NotFound: The model is not of this engine.
            InvalidArgument: `field` names what it can't do.
        """
        model = self._find(request.model).entry.id
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
        known = self._find(request.model)
        known.users += 1
        try:
            if known.network is None:
                await self.load_model(request.model)
            audio = self._thread.stream(lambda token: self._speak(known, request, token))
            async with aclosing(audio):
                async for samples in audio:
                    yield samples
        finally:
            known.users -= 1

    def _find(self, model: str) -> _Model:
        return find_model(self._models, model)

    def _load(self, known: _Model) -> None:
        """In the device thread."""
        if known.state is ModelState.READY:
            return
        known.state, known.detail = ModelState.LOADING, ""
        try:
            folder = self._store.ensure(known.entry)
            known.network = KokoroModel(folder, threads=known.options.threads_to_use)
            self._verify(known)
        except Exception as err:  # ONNX Runtime and the store raise whatever fits them
            known.state, known.network = ModelState.FAILED, None
            known.detail = f"{type(err).__name__}: {err}"
            raise Unavailable(
                f"The model {known.entry.id} could not be loaded.", reason="MODEL_FAILED"
            ) from err
        known.state = ModelState.READY

    def _verify(self, known: _Model) -> None:
        """In the device thread."""
        network = _loaded(known)
        network.speak(
            phonemes("yes", "en-us", self._espeak), voice=self._voices[0].id, speed=_SPEEDS[1]
        )
        known.verified_at = self._now()

    def _speak(self, known: _Model, request: SpeakRequest, token: CancelToken) -> Iterator[Samples]:
        """In the device thread."""
        network = _loaded(known)  # an operator may have unloaded it meanwhile
        parts = pieces(phonemes(request.text, request.language, self._espeak))
        if not parts:
            yield silence(BLANK / request.speed)
        for part in parts:
            token.raise_if_cancelled()
            yield network.speak(part, voice=request.voice.id, speed=request.speed)


def _loaded(known: _Model) -> KokoroModel:
    if known.network is None:
        raise Unavailable(f"The model {known.entry.id} is not loaded.")
    return known.network
