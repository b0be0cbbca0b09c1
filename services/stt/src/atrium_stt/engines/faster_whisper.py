"""Whisper on a CPU or a GPU by faster-whisper (CTranslate2); the registry loads this lazily.

One device thread does one transcription at a time, so the engine is serial: a `WorkQueue`
of one slot stands in front of it.
"""

import time
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import ctranslate2
from faster_whisper import WhisperModel  # type: ignore[import-untyped]

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import ModelInfo, ModelState
from atrium_common.engine_models import find_model, load_each, model_info
from atrium_common.engine_options import read_options
from atrium_common.errors import Conflict, InvalidArgument, Unavailable
from atrium_common.weights import WeightStore
from atrium_common.work import CancelToken, DeviceThread, Serial
from atrium_stt.audio import open_recording
from atrium_stt.domain import LiveJob, Task, TranscriptionEvent, TranscriptionJob
from atrium_stt.engines.decoding import Transcriber
from atrium_stt.engines.live import LiveTranscriber
from atrium_stt.engines.meter import UsageMeter
from atrium_stt.engines.options import FasterWhisperOptions
from atrium_stt.engines.stepping import Stepping
from atrium_stt.engines.whisper_live import WhisperLiveTranscriber
from atrium_stt.recording import Recording


@dataclass(slots=True)
class _Model:
    """A model of the catalogue and where it stands."""

    entry: ModelEntry
    options: FasterWhisperOptions
    state: ModelState = ModelState.UNLOADED
    transcriber: Transcriber | None = None
    verified_at: datetime | None = None
    detail: str = ""
    users: int = 0


class FasterWhisperEngine:
    """Serves Whisper models in CTranslate2's format."""

    name = "faster-whisper"
    scheduling = Serial()

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        store: WeightStore,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Reads the entries; loads nothing.

        Args:
            entries: The models, in catalogue order.
            store: Where their files are.
            now: Aware UTC, for `ModelInfo.verified_at`.
            clock: Seconds, for inference time.

        Raises:
            CatalogueError: An entry has an option that this engine does not know.
        """
        self._models = {e.id: _Model(e, read_options(FasterWhisperOptions, e)) for e in entries}
        self._store = store
        self._now = now
        self._clock = clock
        self._thread = DeviceThread("faster-whisper")
        self._stepping: Stepping[TranscriptionEvent] = Stepping(self._thread)

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
        known = self._find(model)
        await self._thread.call(self._load, known)

    async def unload_model(self, model: str) -> None:
        """Frees a model's memory.

        Raises:
            Conflict: Requests run on it.
        """
        known = self._find(model)
        if known.users:
            raise Conflict(f"{known.users} requests are running on {model}.", reason="MODEL_BUSY")
        known.transcriber, known.state, known.verified_at = None, ModelState.UNLOADED, None

    async def close(self) -> None:
        """Stops running work at its next segment and frees memory."""
        self._stepping.cancel()
        self._thread.close()
        for known in self._models.values():
            known.transcriber, known.state = None, ModelState.UNLOADED

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
        """Transcribes a tenth of a second of silence, behind what runs now."""
        known = self._find(model)
        await self._thread.call(self._verify, known)

    def check(self, job: TranscriptionJob) -> None:
        """Refuses what the job's model can't do; knows less while it is not loaded.

        Raises:
            NotFound: The model is not of this engine.
            InvalidArgument: The model does not know the language or does not translate.
        """
        transcriber = self._find(job.model).transcriber
        if transcriber is None:
            return
        if job.language is not None and job.language not in transcriber.languages:
            raise InvalidArgument(
                f"{job.model} does not know the language {job.language!r}.", field="language"
            )
        if job.task is Task.TRANSLATE and not transcriber.translates:
            raise InvalidArgument(f"{job.model} does not translate.", field="task")

    async def transcribe(
        self, job: TranscriptionJob, audio: Path | Recording
    ) -> AsyncIterator[TranscriptionEvent]:
        """Streams the info, then segments, then the whole usage.

        Usage grows with the segments: `input_audio` is the end of the last one, and the
        whole recording once all of it is transcribed. Closing the iterator stops the work
        at the next segment (in a long recording: at the next batch of windows). Each step
        is decoded when it is asked for, so live speakers can be heard in between.
        """
        known = self._find(job.model)
        known.users += 1
        try:
            if known.transcriber is None:
                await self.load_model(job.model)
            self.check(job)
            recording = await open_recording(audio)
            try:
                events = self._stepping.stream(
                    lambda token: self._transcribe(known, job, recording, token)
                )
                async with aclosing(events):
                    async for event in events:
                        yield event
            finally:
                if recording is not audio:
                    recording.close()
        finally:
            known.users -= 1

    @asynccontextmanager
    async def open_live(self, job: LiveJob) -> AsyncIterator[LiveTranscriber]:
        """Listens to one speaker; the model stays loaded meanwhile."""
        known = self._find(job.transcription.model)
        known.users += 1
        try:
            if known.transcriber is None:
                await self.load_model(known.entry.id)
            self.check(job.transcription)
            transcriber = _loaded(known)
            fitting = replace(job, transcription=transcriber.fit_context(job.transcription))
            yield WhisperLiveTranscriber(transcriber.model, self._thread, fitting)
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
            model = WhisperModel(
                str(self._store.ensure(known.entry)),
                device=device,
                device_index=known.options.device_index,
                compute_type=known.entry.dtype or "default",
                cpu_threads=known.options.threads,
                local_files_only=True,
            )
            known.transcriber = Transcriber(model, options=known.options, device=device)
            self._verify(known)
        except Exception as err:  # CTranslate2 and the store raise whatever fits them
            known.state, known.transcriber = ModelState.FAILED, None
            known.detail = f"{type(err).__name__}: {err}"
            raise Unavailable(
                f"The model {known.entry.id} could not be loaded.", reason="MODEL_FAILED"
            ) from err
        known.state = ModelState.READY

    def _verify(self, known: _Model) -> None:
        """In the device thread."""
        _loaded(known).verify()
        known.verified_at = self._now()

    def _transcribe(
        self, known: _Model, job: TranscriptionJob, recording: Recording, token: CancelToken
    ) -> Generator[TranscriptionEvent, None, None]:
        """In the device thread."""
        transcriber = _loaded(known)
        usage = UsageMeter(
            known.entry, duration=recording.duration, engine=self.name, clock=self._clock
        )
        steps = transcriber.run(job, recording, token)
        while (step := usage.time(steps)) is not None:
            yield TranscriptionEvent(step=step, usage=usage.after(step))
        yield TranscriptionEvent(step=None, usage=usage.whole())


def _loaded(known: _Model) -> Transcriber:
    """Returns a model's transcriber; an operator may have unloaded it meanwhile."""
    if known.transcriber is None:
        raise Unavailable(f"The model {known.entry.id} is not loaded.")
    return known.transcriber


def _device(options: FasterWhisperOptions) -> str:
    if options.device != "auto":
        return options.device
    return "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
