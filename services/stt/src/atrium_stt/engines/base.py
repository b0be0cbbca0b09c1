"""What every transcription engine meets, so that the servicer needs to know none."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

from atrium_common.domain import ModelInfo
from atrium_stt.domain import TranscriptionEvent, TranscriptionJob


class TranscriptionEngine(Protocol):
    """Serves one or more speech recognition models of the catalogue."""

    name: str
    """Registry name, e.g. ``"faster-whisper"``; it stands in every `Usage`."""

    async def load(self) -> None:
        """Loads every model that is to be ready at start."""
        ...

    async def close(self) -> None:
        """Stops running work and frees memory. May be called twice."""
        ...

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order, with their present state."""
        ...

    async def verify(self, model: str) -> None:
        """Transcribes a tenth of a second of silence; raises if that fails."""
        ...

    def transcribe(
        self, job: TranscriptionJob, audio: Path
    ) -> AsyncIterator[TranscriptionEvent]:
        """Streams the segments of an audio file of any container and codec.

        Closing the iterator stops the work at the next segment. Raises
        `MediaError` for audio that can't be decoded or is too long.
        """
        ...
