"""Counts what a transcription consumed; every engine of this service uses it."""

from collections.abc import Callable, Iterator
from datetime import timedelta

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Usage
from atrium_stt.domain import Segment, TranscriptionInfo


class UsageMeter:
    """Counts what one transcription consumed so far."""

    def __init__(
        self,
        entry: ModelEntry,
        *,
        duration: timedelta,
        engine: str,
        clock: Callable[[], float],
    ) -> None:
        """Begins at nothing.

        Args:
            entry: The model that works.
            duration: Length of the recording.
            engine: Name of the engine.
            clock: Seconds.
        """
        self._entry = entry
        self._engine = engine
        self._duration = duration
        self._clock = clock
        self._audio = timedelta()
        self._busy = 0.0

    def time(
        self, steps: Iterator[TranscriptionInfo | Segment]
    ) -> TranscriptionInfo | Segment | None:
        """Returns the next step, or ``None`` at the end; waiting for readers is not counted."""
        started = self._clock()
        try:
            return next(steps, None)
        finally:
            self._busy += self._clock() - started

    def after(self, step: TranscriptionInfo | Segment) -> Usage:
        """Returns the usage with `step` sent: audio up to the end of the last segment."""
        if isinstance(step, Segment):
            self._audio = max(self._audio, min(step.end, self._duration))
        return self._usage(self._audio)

    def whole(self) -> Usage:
        """Returns the usage of the whole recording."""
        return self._usage(self._duration)

    def _usage(self, audio: timedelta) -> Usage:
        return Usage(
            model=self._entry.id,
            model_digest=self._entry.digest,
            engine=self._engine,
            inference_time=timedelta(seconds=self._busy),
            input_audio=audio,
        )
