"""XTTS-v2 on a CPU or a GPU by coqui-tts; the registry loads this lazily.

One device thread says one utterance at a time, so the engine is serial: a `WorkQueue` of
one slot stands in front of it. Audio leaves while the utterance is still being made.
"""

import gc
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import ModelInfo, ModelState
from atrium_common.engine_models import find_model, load_each, model_info
from atrium_common.errors import AtriumError, Conflict, InvalidArgument, NotFound, Unavailable
from atrium_common.weights import WeightStore
from atrium_common.work import CancelToken, DeviceThread, Serial
from atrium_tts.domain import SpeakRequest, Voice
from atrium_tts.engines.base import Samples
from atrium_tts.engines.xtts_model import XttsModel
from atrium_tts.engines.xtts_options import XttsOptions
from atrium_tts.engines.xtts_text import LANGUAGES, check_language, missing_library, own_language
from atrium_tts.engines.xtts_voices import SPEAKERS, Speaker, speakers_of

_SAMPLE_RATE = 24_000
_SPEEDS = (0.7, 1.5)
"""Beyond, stretching the latents smears words; the service stretches the sound instead."""


@dataclass(slots=True)
class _Model:
    """A model of the catalogue and where it stands."""

    entry: ModelEntry
    options: XttsOptions
    state: ModelState = ModelState.UNLOADED
    loaded: XttsModel | None = None
    verified_at: datetime | None = None
    detail: str = ""
    users: int = 0
    speakers: tuple[Speaker, ...] = SPEAKERS


class XttsEngine:
    """Serves XTTS checkpoints, and clones voices."""

    name = "xtts"
    scheduling = Serial()
    sentencewise = True

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        store: WeightStore,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Reads the entries; loads nothing.

        Args:
            entries: The models, in catalogue order.
            store: Where their files are.
            now: Aware UTC, for `ModelInfo.verified_at`.

        Raises:
            CatalogueError: An entry has an option that this engine does not know.
        """
        self._models = {e.id: _Model(e, XttsOptions.of(e)) for e in entries}
        self._store = store
        self._now = now
        self._thread = DeviceThread("xtts")

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
            WeightsError: Its files can't be had, or its licence was not accepted.
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
        known.loaded, known.state, known.verified_at = None, ModelState.UNLOADED, None
        await self._thread.call(_release)

    async def close(self) -> None:
        """Stops running work at its next token and frees memory."""
        self._thread.close()
        for known in self._models.values():
            known.loaded, known.state = None, ModelState.UNLOADED

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
        """Says one letter, behind what runs now."""
        await self._thread.call(self._verify, self._find(model))

    def voices(self) -> Sequence[Voice]:
        """Lists the built-in voices: XTTS-v2's own, and once loaded those of the file."""
        models: dict[Speaker, list[_Model]] = {}
        for known in self._models.values():
            for speaker in known.speakers:
                models.setdefault(speaker, []).append(known)
        languages = tuple(name for name in LANGUAGES if missing_library(name) is None)
        return tuple(
            Voice(
                id=speaker.id,
                name=speaker.name,
                models=tuple(known.entry.id for known in speaking),
                languages=languages,
                gender=speaker.gender,
                license=speaking[0].entry.license,
                aliases=speaker.aliases,
            )
            for speaker, speaking in models.items()
        )

    def languages(self, model: str) -> Sequence[str]:
        """The 17 languages of XTTS-v2; `check` tells which lack a library here."""
        self._find(model)
        return LANGUAGES

    def sample_rate(self, model: str) -> int:
        """24 kHz."""
        self._find(model)
        return _SAMPLE_RATE

    def speeds(self, model: str) -> tuple[float, float]:
        """From 0.7 to 1.5."""
        self._find(model)
        return _SPEEDS

    def clones(self, model: str) -> bool:
        """Every XTTS model clones."""
        self._find(model)
        return True

    def check(self, request: SpeakRequest) -> None:
        """Refuses what the model can't do.

        Raises:
            NotFound: The model or the voice is not of this engine.
            InvalidArgument: `field` is ``"language"`` or ``"instructions"``.
        """
        known = self._find(request.model)
        check_language(request.model, request.language)
        if request.instructions:
            raise InvalidArgument(
                f"{request.model} does not follow instructions.", field="instructions"
            )
        _voice(known, request)

    async def speak(self, request: SpeakRequest) -> AsyncIterator[Samples]:
        """Streams the audio of one utterance as it is made.

        Closing the iterator stops the work at its next token.

        Raises:
            NotFound: As in `check`.
            InvalidArgument: As in `check`; or the voice is of another model, or the text
                can't be read.
            Unavailable: The model is not loaded.
        """
        self.check(request)
        known = self._find(request.model)
        known.users += 1
        try:
            audio = self._thread.stream(lambda token: self._speak(known, request, token))
            async with aclosing(audio):
                async for samples in audio:
                    yield samples
        finally:
            known.users -= 1

    async def clone(self, model: str, samples: Samples, sample_rate: int) -> bytes:
        """Makes a voice from a recording, behind what runs now.

        Raises:
            MediaError: There is no speech in the recording.
            Unavailable: The model is not loaded.
        """
        known = self._find(model)
        known.users += 1
        try:
            return await self._thread.call(
                lambda: _loaded(known).clone(samples, sample_rate).pack()
            )
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
            device = _device(known.options)
            model = XttsModel(
                self._store.ensure(known.entry),
                options=known.options,
                device=device,
                dtype=known.entry.dtype or ("float32" if device == "cpu" else "float16"),
            )
            if model.sample_rate != _SAMPLE_RATE:
                raise Unavailable(f"{known.entry.id} speaks at {model.sample_rate} Hz, not 24000.")
            known.loaded, known.speakers = model, speakers_of(model.speakers)
            self._verify(known)
        except Exception as err:  # the library and torch raise whatever fits them
            known.state, known.loaded = ModelState.FAILED, None
            known.detail = f"{type(err).__name__}: {err}"
            if isinstance(err, AtriumError):  # says already what to do
                raise
            raise Unavailable(
                f"The model {known.entry.id} could not be loaded.", reason="MODEL_FAILED"
            ) from err
        known.state = ModelState.READY

    def _verify(self, known: _Model) -> None:
        """In the device thread."""
        model = _loaded(known)
        if not model.speakers:
            raise Unavailable(f"{known.entry.id} has no built-in voices.", reason="MODEL_FAILED")
        if next(model.speak("a", "en", model.speakers[0]), None) is None:
            raise Unavailable(f"{known.entry.id} says nothing.", reason="MODEL_FAILED")
        known.verified_at = self._now()

    def _speak(self, known: _Model, request: SpeakRequest, token: CancelToken) -> Iterator[Samples]:
        """In the device thread."""
        yield from _loaded(known).speak(
            request.text,
            own_language(request.language) or request.language,
            _voice(known, request),
            speed=request.speed,
            seed=request.seed,
            temperature=request.temperature,
            left=lambda: token.cancelled,
        )


def _voice(known: _Model, request: SpeakRequest) -> str | bytes:
    """Returns what the model calls the voice."""
    if request.latents is not None:
        return request.latents
    for speaker in known.speakers:
        if speaker.id == request.voice.id:
            return speaker.name
    raise NotFound(
        f"The voice {request.voice.id!r} does not exist.", reason="VOICE_NOT_FOUND", field="voice"
    )


def _loaded(known: _Model) -> XttsModel:
    if known.loaded is None:
        raise Unavailable(f"The model {known.entry.id} is not loaded.", reason="MODEL_NOT_LOADED")
    return known.loaded


def _release() -> None:
    """Gives memory back that torch would keep for the next model."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _device(options: XttsOptions) -> str:
    if options.device == "cpu" or (options.device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    return f"cuda:{options.device_index}"
