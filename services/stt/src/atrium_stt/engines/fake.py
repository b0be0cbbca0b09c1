"""An engine without a model: as many segments as the audio is long, at a set pace.

For contract, load and cancellation tests, here and in the gateway. It honours every
option, so that the wire can be tested to the last field.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import Field

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import ModelInfo
from atrium_common.engine_models import find_model
from atrium_common.engine_options import EngineOptions, read_options
from atrium_common.errors import InvalidArgument
from atrium_common.lifecycle import Lifecycle, weightless_host
from atrium_common.weights import WeightStore
from atrium_common.work import Serial
from atrium_stt.audio import open_recording
from atrium_stt.domain import (
    LiveJob,
    Segment,
    Task,
    TranscriptionEvent,
    TranscriptionInfo,
    TranscriptionJob,
    Word,
)
from atrium_stt.engines.fake_live import FakeLiveTranscriber
from atrium_stt.engines.live import LiveTranscriber
from atrium_stt.engines.meter import UsageMeter
from atrium_stt.recording import Recording

LANGUAGES = ("en", "de", "fr", "es", "it", "ru", "zh", "yue")
"""What it claims to know; the first is what it detects."""


class FakeOptions(EngineOptions):
    """Options of the engine `fake`, with their defaults."""

    segment_seconds: float = Field(default=5.0, gt=0)
    """Audio per segment."""

    delay_seconds: float = Field(default=0.0, ge=0)
    """Pause before each segment, and in each decoding of live audio."""

    translates: bool = True
    """Whether it accepts the task `translate`."""


class FakeEngine:
    """Answers " Segment 0 of <job>." and so on, without listening.

    Attributes:
        started: Segments that were begun, over all jobs, for tests of cancellation.
        listening: Live jobs that are open.
    """

    name = "fake"
    scheduling = Serial()

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        store: WeightStore | None = None,
        lifecycle: Lifecycle | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Reads the entries.

        Args:
            entries: The models, in catalogue order.
            store: Not used; there are no weights.
            lifecycle: Shared by the process's engines; see `ModelHost`.
            now: Aware UTC, for what `models` reports.
            clock: Seconds, for inference time.

        Raises:
            CatalogueError: An entry has an option that this engine does not know.
        """
        self._options = {entry.id: read_options(FakeOptions, entry) for entry in entries}
        self._host = weightless_host(self.name, entries, lifecycle=lifecycle, now=now)
        self._clock = clock
        self.started = 0
        self.listening = 0

    async def load(self) -> None:
        """Is ready at once; see `ModelHost.load`."""
        await self._host.load()

    async def load_model(self, model: str) -> None:
        """Loads one; see `ModelHost.load_model`."""
        await self._host.load_model(model)

    async def unload_model(self, model: str) -> None:
        """Unloads one; see `ModelHost.unload_model`."""
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

    def check(self, job: TranscriptionJob) -> None:
        """Refuses languages that are not in `LANGUAGES`, and translation where told to."""
        options = find_model(self._options, job.model)
        if job.language is not None and job.language not in LANGUAGES:
            raise InvalidArgument(
                f"{job.model} does not know the language {job.language!r}.", field="language"
            )
        if job.task is Task.TRANSLATE and not options.translates:
            raise InvalidArgument(f"{job.model} does not translate.", field="task")

    async def transcribe(
        self, job: TranscriptionJob, audio: Path | Recording
    ) -> AsyncIterator[TranscriptionEvent]:
        """Streams the info, a segment for each stretch of audio, then the whole usage."""
        self.check(job)
        options = self._options[job.model]
        async with self._host.use(job.model) as entry:
            recording = await open_recording(audio)
            try:
                meter = UsageMeter(
                    entry, duration=recording.duration, engine=self.name, clock=self._clock
                )
                steps = _steps(job, recording.duration, options)
                while (step := meter.time(steps)) is not None:
                    if isinstance(step, Segment):
                        self.started += 1
                        await asyncio.sleep(options.delay_seconds)
                    yield TranscriptionEvent(step=step, usage=meter.after(step))
                yield TranscriptionEvent(step=None, usage=meter.whole())
            finally:
                if recording is not audio:
                    recording.close()

    @asynccontextmanager
    async def open_live(self, job: LiveJob) -> AsyncIterator[LiveTranscriber]:
        """Listens; see `FakeLiveTranscriber`."""
        self.check(job.transcription)
        options = self._options[job.transcription.model]
        async with self._host.use(job.transcription.model):
            self.listening += 1
            try:
                yield FakeLiveTranscriber(
                    job,
                    language=LANGUAGES[0],
                    pause=lambda: asyncio.sleep(options.delay_seconds),
                )
            finally:
                self.listening -= 1


def _steps(
    job: TranscriptionJob, duration: timedelta, options: FakeOptions
) -> Iterator[TranscriptionInfo | Segment]:
    yield TranscriptionInfo(
        language=job.language or LANGUAGES[0],
        language_probability=1.0 if job.language else 0.9,
        duration=duration,
        speech_duration=duration,
    )
    length = timedelta(seconds=options.segment_seconds)
    start, index = timedelta(), 0
    while start < duration:
        end = min(start + length, duration)
        yield _segment(job, index, start, end)
        start, index = end, index + 1


def _segment(job: TranscriptionJob, index: int, start: timedelta, end: timedelta) -> Segment:
    texts = (" Segment", f" {index}", f" {job.task}d.")
    step = (end - start) / len(texts)
    words = tuple(
        Word(start=start + i * step, end=start + (i + 1) * step, text=text, probability=0.99)
        for i, text in enumerate(texts)
    )
    return Segment(
        index=index,
        start=start,
        end=end,
        text="".join(texts),
        words=words if job.word_timestamps else (),
        average_logprob=-0.1,
        no_speech_probability=0.01,
        compression_ratio=1.0,
        temperature=job.temperature or 0.0,
        tokens=tuple(range(index, index + len(texts))),
        seek=int(start.total_seconds() * 100) // 3000 * 3000,
    )
