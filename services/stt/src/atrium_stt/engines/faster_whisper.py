"""Whisper on a CPU or a GPU by faster-whisper (CTranslate2); the registry loads this lazily.

One device thread does one transcription at a time, so the engine is serial: a `WorkQueue`
of one slot stands in front of it.
"""

import time
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import ctranslate2
from faster_whisper import WhisperModel  # type: ignore[import-untyped]

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import ModelInfo
from atrium_common.engine_options import read_options
from atrium_common.errors import InvalidArgument
from atrium_common.lifecycle import Lifecycle, ModelHandling, ModelHost, device_bytes
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


class FasterWhisperEngine:
    """Serves Whisper models in CTranslate2's format."""

    name = "faster-whisper"
    scheduling = Serial()

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        store: WeightStore,
        lifecycle: Lifecycle | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Reads the entries; loads nothing.

        Args:
            entries: The models, in catalogue order.
            store: Where their files are.
            lifecycle: Shared by the process's engines; see `ModelHost`.
            now: Aware UTC, for what `models` reports.
            clock: Seconds, for inference time.

        Raises:
            CatalogueError: An entry has an option that this engine does not know.
        """
        self._options = {e.id: read_options(FasterWhisperOptions, e) for e in entries}
        self._store = store
        self._clock = clock
        self._thread = DeviceThread("faster-whisper")
        self._stepping: Stepping[TranscriptionEvent] = Stepping(self._thread)
        handling = ModelHandling(
            open_model=lambda entry: self._thread.call(self._open, entry),
            warm_up=lambda _, loaded: self._thread.call(loaded.verify),
            close_model=lambda *_: self._thread.flush(),
            measure=self._taken,
        )
        self._host: ModelHost[Transcriber] = ModelHost(
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
        """Stops running work at its next segment and frees memory."""
        self._stepping.cancel()
        self._thread.close()
        await self._host.close()

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order."""
        return self._host.models()

    async def verify(self, model: str) -> None:
        """Transcribes a tenth of a second of silence, behind what runs now."""
        await self._host.verify(model)

    def check(self, job: TranscriptionJob) -> None:
        """Refuses what the job's model can't do; knows less while it is not loaded.

        Raises:
            NotFound: The model is not of this engine.
            InvalidArgument: The model does not know the language or does not translate.
        """
        transcriber = self._host.peek(job.model)
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
        async with self._host.use(job.model) as transcriber:
            self.check(job)
            recording = await open_recording(audio)
            try:
                events = self._stepping.stream(
                    lambda token: self._transcribe(transcriber, job, recording, token)
                )
                async with aclosing(events):
                    async for event in events:
                        yield event
            finally:
                if recording is not audio:
                    recording.close()

    @asynccontextmanager
    async def open_live(self, job: LiveJob) -> AsyncIterator[LiveTranscriber]:
        """Listens to one speaker; the model stays loaded meanwhile."""
        async with self._host.use(job.transcription.model) as transcriber:
            self.check(job.transcription)
            fitting = replace(job, transcription=transcriber.fit_context(job.transcription))
            yield WhisperLiveTranscriber(transcriber.model, self._thread, fitting)

    def _open(self, entry: ModelEntry) -> Transcriber:
        """In the device thread."""
        options = self._options[entry.id]
        device = _device(options)
        model = WhisperModel(
            str(self._store.ensure(entry)),
            device=device,
            device_index=options.device_index,
            compute_type=entry.dtype or "default",
            cpu_threads=options.threads,
            local_files_only=True,
        )
        return Transcriber(model, options=options, device=device)

    def _taken(self, entry: ModelEntry) -> int | None:
        """Tells the process's memory; what CTranslate2 takes of a GPU can't be asked for."""
        return device_bytes() if _device(self._options[entry.id]) == "cpu" else None

    def _transcribe(
        self,
        transcriber: Transcriber,
        job: TranscriptionJob,
        recording: Recording,
        token: CancelToken,
    ) -> Generator[TranscriptionEvent, None, None]:
        """In the device thread."""
        usage = UsageMeter(
            self._host.entry(job.model),
            duration=recording.duration,
            engine=self.name,
            clock=self._clock,
        )
        steps = transcriber.run(job, recording, token)
        while (step := usage.time(steps)) is not None:
            yield TranscriptionEvent(step=step, usage=usage.after(step))
        yield TranscriptionEvent(step=None, usage=usage.whole())


def _device(options: FasterWhisperOptions) -> str:
    if options.device != "auto":
        return options.device
    return "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
