"""Reads the recording that a voice is made from, bounded and checked. The servicer calls it.

The recording lives in memory while the voice is made and is kept nowhere.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atrium_common.audio import AudioLimit, decode, decoded
from atrium_common.errors import MediaError
from atrium_tts.engines.base import Samples

SAMPLE_RATE = 24_000
"""Samples per second that engines are given."""

_FIELD = "recording"
_BLOCK = SAMPLE_RATE // 50
_SILENT = 10 ** (-50 / 20)
"""Loudness (root mean square, of full scale) below which a 20 ms block is taken for silence."""
_LEAST_LOUD_SECONDS = 1.0
_PADDING = timedelta(milliseconds=100)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceLimits:
    """What recordings are taken.

    Attributes:
        shortest: Least audio.
        longest: Most audio.
        max_bytes: Largest upload.
        directory: Where uploads are spooled; ``None`` takes the system's folder.
        at_once: Recordings that are decoded at once.
    """

    shortest: timedelta = timedelta(seconds=6)
    longest: timedelta = timedelta(seconds=30)
    max_bytes: int = 16 * 1024**2
    directory: Path | None = None
    at_once: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A recording that a voice can be made from; `samples` at `SAMPLE_RATE`."""

    samples: Samples

    @property
    def duration(self) -> timedelta:
        """Length of the audio."""
        return timedelta(seconds=len(self.samples) / SAMPLE_RATE)


class ReferenceReader:
    """Decodes recordings, a few at a time."""

    def __init__(self, limits: ReferenceLimits) -> None:
        self._limits = limits
        self._room = asyncio.Semaphore(limits.at_once)

    async def read(self, path: Path) -> Reference:
        """Decodes and checks a recording.

        Raises:
            MediaError: It is corrupt, silent, too short or too long; the reason is one of
                those of `atrium_common.audio.decode`, ``AUDIO_TOO_SHORT`` or
                ``AUDIO_SILENT``.
        """
        async with self._room:
            data = await decoded(partial(_decode, path, self._limits.longest))
        reference = Reference(samples=data.astype(np.float32) / np.float32(32768.0))
        if reference.duration < self._limits.shortest:
            raise MediaError(
                f"The recording has {reference.duration.total_seconds():.1f} s, at least "
                f"{self._limits.shortest.total_seconds():.0f} s are needed.",
                reason="AUDIO_TOO_SHORT",
                field=_FIELD,
            )
        if _loud_seconds(reference.samples) < _LEAST_LOUD_SECONDS:
            raise MediaError("The recording is silent.", reason="AUDIO_SILENT", field=_FIELD)
        return reference


def _decode(path: Path, longest: timedelta, cancelled: Callable[[], bool]) -> NDArray[np.int16]:
    pieces: list[bytes] = []
    decode(
        path,
        sample_rate=SAMPLE_RATE,
        # A lossy codec pads its last packets.
        limit=AudioLimit(duration=longest + _PADDING, field=_FIELD),
        write=pieces.append,
        cancelled=cancelled,
    )
    return np.frombuffer(b"".join(pieces), np.int16)


def _loud_seconds(samples: Samples) -> float:
    blocks = samples[: len(samples) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
    loud = np.sqrt(np.mean(np.square(blocks), axis=1)) > _SILENT
    return float(np.count_nonzero(loud)) * _BLOCK / SAMPLE_RATE
