"""What every transcription engine meets, so that the servicer needs to know none."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from atrium_common.domain import ModelInfo
from atrium_common.work import Batching, Serial
from atrium_stt.domain import LiveJob, TranscriptionEvent, TranscriptionJob
from atrium_stt.engines.live import LiveTranscriber
from atrium_stt.recording import Recording


class TranscriptionEngine(Protocol):
    """Serves one or more speech recognition models of the catalogue."""

    name: str
    """Registry name, e.g. ``"faster-whisper"``; it stands in every `Usage`."""

    @property
    def scheduling(self) -> Serial | Batching:
        """Which kind of queue stands in front of it."""
        ...

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

    def check(self, job: TranscriptionJob) -> None:
        """Refuses at once, before any audio, what the job's model can't do.

        Raises:
            NotFound: This engine does not serve the model.
            InvalidArgument: An option is not the model's; `field` names it.
        """
        ...

    def transcribe(
        self, job: TranscriptionJob, audio: Path | Recording
    ) -> AsyncIterator[TranscriptionEvent]:
        """Streams the info, then segments, then an event with the whole usage.

        Usage is cumulative: its `input_audio` is the end of the last segment, and the
        whole recording once all of it is transcribed.

        Closing the iterator stops the work at the next segment. Raises `MediaError` for
        a file that can't be decoded or is too long, and what `check` raises.

        Args:
            job: What to do.
            audio: A file of any container and codec, or audio that is decoded already.
        """
        ...

    def open_live(self, job: LiveJob) -> AbstractAsyncContextManager[LiveTranscriber]:
        """Begins to listen to one speaker; loads the model if it is not loaded.

        Several may be open at once. Each decoding is called in a turn of the engine's
        queue, as is each step of `transcribe`.

        Raises:
            Unavailable: The model can't be loaded.
            AtriumError: What `check` raises.
        """
        ...
