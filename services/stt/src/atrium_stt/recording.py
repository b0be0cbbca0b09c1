"""Decoded audio, as `audio.py` makes it and engines read it.

The samples lie in an unnamed temporary file, so that memory does not grow with the length
of the audio: engines take the stretch that they work on.
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
"""Samples per second of a `Recording`."""


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """What is decoded at most.

    Attributes:
        duration: Longest audio.
        directory: Where decoded samples are spooled (1 MB per 33 s); ``None`` takes the
            system's temporary folder.
    """

    duration: timedelta = timedelta(hours=4)
    directory: Path | None = None


class Recording:
    """Decoded audio: 16 kHz mono. Close it to free its spool file."""

    def __init__(self, spool: IO[bytes]) -> None:
        """Takes over a file of 16-bit samples in the machine's byte order; at least one."""
        self._spool = spool
        self._samples: NDArray[np.int16] = np.memmap(spool, dtype=np.int16, mode="r")

    def __enter__(self) -> "Recording":
        """Returns itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Closes it."""
        self.close()

    @property
    def sample_count(self) -> int:
        """Samples, 1 or more."""
        return len(self._samples)

    @property
    def duration(self) -> timedelta:
        """Length of the audio."""
        return timedelta(seconds=self.sample_count / SAMPLE_RATE)

    def samples(self, start: int, stop: int) -> NDArray[np.float32]:
        """Returns the samples from `start` up to `stop`, -1 to 1, shape ``(stop - start,)``."""
        window: NDArray[np.int16] = self._samples[start:stop]
        return window.astype(np.float32) / np.float32(32768.0)

    def close(self) -> None:
        """Frees the spool file. May be called twice, and while an engine still reads."""
        self._spool.close()
