"""XTTS-v2 on a CPU or a GPU by coqui-tts; the registry loads this lazily.

One device thread says one utterance at a time, so the engine is serial: a `WorkQueue` of
one slot stands in front of it. Audio leaves while the utterance is still being made.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime

import torch

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import ModelInfo
from atrium_common.errors import InvalidArgument, NotFound, Unavailable
from atrium_common.lifecycle import Lifecycle, ModelHandling, ModelHost, device_bytes
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
        lifecycle: Lifecycle | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Reads the entries; loads nothing.

        Args:
            entries: The models, in catalogue order.
            store: Where their files are.
            lifecycle: Shared by the process's engines; see `ModelHost`.
            now: Aware UTC, for what `models` reports.

        Raises:
            CatalogueError: An entry has an option that this engine does not know.
        """
        self._entries = {entry.id: entry for entry in entries}
        self._options = {entry.id: XttsOptions.of(entry) for entry in entries}
        self._speakers = dict.fromkeys(self._entries, SPEAKERS)
        self._store = store
        self._thread = DeviceThread("xtts")
        handling = ModelHandling(
            open_model=lambda entry: self._thread.call(self._open, entry),
            warm_up=lambda entry, model: self._thread.call(_say_a_letter, entry, model),
            close_model=lambda *_: self._thread.flush(),
            measure=lambda entry: device_bytes(_device(self._options[entry.id])),
        )
        self._host: ModelHost[XttsModel] = ModelHost(
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
        """Stops running work at its next token and frees memory."""
        self._thread.close()
        await self._host.close()

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order."""
        return self._host.models()

    async def verify(self, model: str) -> None:
        """Says one letter, behind what runs now."""
        await self._host.verify(model)

    def voices(self) -> Sequence[Voice]:
        """Lists the built-in voices: XTTS-v2's own, and once loaded those of the file."""
        models: dict[Speaker, list[ModelEntry]] = {}
        for model, speakers in self._speakers.items():
            for speaker in speakers:
                models.setdefault(speaker, []).append(self._entries[model])
        languages = tuple(name for name in LANGUAGES if missing_library(name) is None)
        return tuple(
            Voice(
                id=speaker.id,
                name=speaker.name,
                models=tuple(entry.id for entry in speaking),
                languages=languages,
                gender=speaker.gender,
                license=speaking[0].license,
                aliases=speaker.aliases,
            )
            for speaker, speaking in models.items()
        )

    def languages(self, model: str) -> Sequence[str]:
        """The 17 languages of XTTS-v2; `check` tells which lack a library here."""
        self._host.entry(model)
        return LANGUAGES

    def sample_rate(self, model: str) -> int:
        """24 kHz."""
        self._host.entry(model)
        return _SAMPLE_RATE

    def speeds(self, model: str) -> tuple[float, float]:
        """From 0.7 to 1.5."""
        self._host.entry(model)
        return _SPEEDS

    def clones(self, model: str) -> bool:
        """Every XTTS model clones."""
        self._host.entry(model)
        return True

    def check_ready(self, model: str) -> None:
        """Refuses a model that has failed; see `ModelHost.check`."""
        self._host.check(model)

    def check(self, request: SpeakRequest) -> None:
        """Refuses what the model can't do.

        Raises:
            NotFound: The model or the voice is not of this engine.
            InvalidArgument: `field` is ``"language"`` or ``"instructions"``.
        """
        self._host.entry(request.model)
        check_language(request.model, request.language)
        if request.instructions:
            raise InvalidArgument(
                f"{request.model} does not follow instructions.", field="instructions"
            )
        self._voice(request)

    async def speak(self, request: SpeakRequest) -> AsyncIterator[Samples]:
        """Streams the audio of one utterance as it is made.

        Closing the iterator stops the work at its next token.

        Raises:
            NotFound: As in `check`.
            InvalidArgument: As in `check`; or the voice is of another model, or the text
                can't be read.
            Unavailable: The model can't be loaded.
        """
        self.check(request)
        async with self._host.use(request.model) as model:
            audio = self._thread.stream(lambda token: self._speak(model, request, token))
            async with aclosing(audio):
                async for samples in audio:
                    yield samples

    async def clone(self, model: str, samples: Samples, sample_rate: int) -> bytes:
        """Makes a voice from a recording, behind what runs now.

        Raises:
            MediaError: There is no speech in the recording.
            Unavailable: The model can't be loaded.
        """
        async with self._host.use(model) as loaded:
            return await self._thread.call(lambda: loaded.clone(samples, sample_rate).pack())

    def _open(self, entry: ModelEntry) -> XttsModel:
        """In the device thread."""
        options = self._options[entry.id]
        device = _device(options)
        model = XttsModel(
            self._store.ensure(entry),
            options=options,
            device=device,
            dtype=entry.dtype or ("float32" if device == "cpu" else "float16"),
        )
        if model.sample_rate != _SAMPLE_RATE:
            raise Unavailable(f"{entry.id} speaks at {model.sample_rate} Hz, not 24000.")
        self._speakers[entry.id] = speakers_of(model.speakers)
        return model

    def _speak(
        self, model: XttsModel, request: SpeakRequest, token: CancelToken
    ) -> Iterator[Samples]:
        """In the device thread."""
        yield from model.speak(
            request.text,
            own_language(request.language) or request.language,
            self._voice(request),
            speed=request.speed,
            seed=request.seed,
            temperature=request.temperature,
            left=lambda: token.cancelled,
        )

    def _voice(self, request: SpeakRequest) -> str | bytes:
        """Returns what the model calls the voice."""
        if request.latents is not None:
            return request.latents
        for speaker in self._speakers[request.model]:
            if speaker.id == request.voice.id:
                return speaker.name
        raise NotFound(
            f"The voice {request.voice.id!r} does not exist.",
            reason="VOICE_NOT_FOUND",
            field="voice",
        )


def _say_a_letter(entry: ModelEntry, model: XttsModel) -> None:
    """In the device thread."""
    if not model.speakers:
        raise Unavailable(f"{entry.id} has no built-in voices.", reason="MODEL_FAILED")
    if next(model.speak("a", "en", model.speakers[0]), None) is None:
        raise Unavailable(f"{entry.id} says nothing.", reason="MODEL_FAILED")


def _device(options: XttsOptions) -> str:
    if options.device == "cpu" or (options.device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    return f"cuda:{options.device_index}"
