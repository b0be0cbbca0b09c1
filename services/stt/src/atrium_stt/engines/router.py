"""The engines of the service as one; `servicer.py` sees only this."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from atrium_common.routing import ModelRouter
from atrium_stt.domain import LiveJob, TranscriptionEvent, TranscriptionJob
from atrium_stt.engines.base import TranscriptionEngine
from atrium_stt.engines.live import LiveTranscriber
from atrium_stt.recording import Recording


class EngineRouter(ModelRouter[TranscriptionEngine]):
    """Dispatches by model id; every method means what `TranscriptionEngine` says."""

    name = "stt"

    def check(self, job: TranscriptionJob) -> None:
        """Asks its engine."""
        self.engine_of(job.model).check(job)

    def transcribe(
        self, job: TranscriptionJob, audio: Path | Recording
    ) -> AsyncIterator[TranscriptionEvent]:
        """Streams a transcription from its engine."""
        return self.engine_of(job.model).transcribe(job, audio)

    def open_live(self, job: LiveJob) -> AbstractAsyncContextManager[LiveTranscriber]:
        """Begins to listen with its engine."""
        return self.engine_of(job.transcription.model).open_live(job)
