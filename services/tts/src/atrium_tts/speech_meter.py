"""Counts what one speech consumes; `speech.py` puts it on every message."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from atrium_common.domain import Usage


class SpeechMeter:
    """The cumulative usage of one speech."""

    def __init__(
        self,
        *,
        model: str,
        model_digest: str,
        engine: str,
        sample_rate: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins at nothing.

        Args:
            model: Catalogue id.
            model_digest: SHA-256 of its weights, or ``""``.
            engine: Name of its engine.
            sample_rate: Samples per second of what is counted.
            clock: Seconds, for inference time.
        """
        self._usage = Usage(model=model, model_digest=model_digest, engine=engine)
        self._rate = sample_rate
        self._clock = clock
        self._samples = 0
        self._working_since: float | None = None

    @property
    def position(self) -> timedelta:
        """Length of the audio that was made."""
        return timedelta(seconds=self._samples / self._rate)

    def waited(self, queue_time: timedelta) -> None:
        """Counts a wait before the first sentence."""
        self._usage = replace(self._usage, queue_time=self._usage.queue_time + queue_time)

    def begin(self, characters: int) -> None:
        """Counts a sentence: from now on it is charged."""
        self._working_since = self._clock()
        self._usage = replace(self._usage, characters=self._usage.characters + characters)

    def work(self) -> None:
        """Counts the time that the engine has worked since it was last asked."""
        if self._working_since is None:
            return
        now = self._clock()
        spent = timedelta(seconds=now - self._working_since)
        self._usage = replace(self._usage, inference_time=self._usage.inference_time + spent)
        self._working_since = now

    def rest(self) -> None:
        """Ends a sentence's work."""
        self.work()
        self._working_since = None

    def made(self, samples: int) -> None:
        """Counts audio."""
        self._samples += samples

    def usage(self) -> Usage:
        """Returns everything so far."""
        return replace(self._usage, output_audio=self.position)
