"""What leaves of a speech: stretched, encoded, hashed and cut, off the event loop.

`speech.py` feeds it with samples and sends on the bytes.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

import numpy as np

from atrium_common.chunks import split
from atrium_tts.domain import SpeechEnd
from atrium_tts.encode import StreamEncoder
from atrium_tts.encoding import Encoding
from atrium_tts.engines.base import Samples
from atrium_tts.speech_meter import SpeechMeter
from atrium_tts.tempo import TimeStretcher, is_heard

P = ParamSpec("P")
T = TypeVar("T")

_FIRST_SECONDS, _SLICE_SECONDS = 0.1, 0.5
"""A sentence that comes in one piece is encoded in slices, so that its first bytes leave
while the rest is encoded; the first of a file is shorter still."""


class SpeechOutput:
    """The file that one speech becomes. A context manager: it frees the encoder."""

    def __init__(self, encoder: StreamEncoder, *, sample_rate: int, meter: SpeechMeter) -> None:
        """Takes over an encoder; see `open`."""
        self._rate = sample_rate
        self._meter = meter
        self._encoder = encoder
        self._stretcher: TimeStretcher | None = None
        self._hash = hashlib.sha256()
        self._size = 0

    @classmethod
    async def open(cls, encoding: Encoding, *, sample_rate: int, meter: SpeechMeter) -> Self:
        """Opens a file.

        Args:
            encoding: How it is written.
            sample_rate: Samples per second of what it is fed.
            meter: Counts the audio.
        """
        encoder = await _off_loop(StreamEncoder, encoding, input_rate=sample_rate)
        return cls(encoder, sample_rate=sample_rate, meter=meter)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._encoder.close()

    def slices(self, samples: Samples) -> Iterator[Samples]:
        """Cuts samples, so that the first bytes of a long piece leave early."""
        start = 0
        while start < len(samples):
            seconds = _SLICE_SECONDS if self._size else _FIRST_SECONDS
            stop = start + int(seconds * self._rate)
            yield samples[start:stop]
            start = stop

    def silence(self, length: timedelta) -> Iterator[Samples]:
        """Gives silence, in slices to `write`."""
        return self.slices(np.zeros(round(length.total_seconds() * self._rate), np.float32))

    def begin(self, stretch: float) -> None:
        """Begins an utterance whose tempo is changed by the factor `stretch`."""
        if is_heard(stretch):
            self._stretcher = TimeStretcher(stretch, sample_rate=self._rate)

    async def write(self, samples: Samples) -> list[bytes]:
        """Writes a slice and returns the chunks that are ready."""
        return await _off_loop(self._stretch, samples)

    async def end(self) -> list[bytes]:
        """Ends the utterance and returns the chunks that are ready."""
        return await _off_loop(self._unstretch) if self._stretcher is not None else []

    async def finish(self) -> list[bytes]:
        """Ends the file and returns its last chunks."""
        return self._cut(await _off_loop(self._encoder.finish))

    @property
    def summary(self) -> SpeechEnd:
        """Digest and size of everything that was yielded."""
        return SpeechEnd(sha256=self._hash.digest(), size=self._size)

    def _stretch(self, samples: Samples) -> list[bytes]:
        stretcher = self._stretcher
        return self._encode(samples if stretcher is None else stretcher.stretch(samples))

    def _unstretch(self) -> list[bytes]:
        stretcher, self._stretcher = self._stretcher, None
        return [] if stretcher is None else self._encode(stretcher.finish())

    def _encode(self, samples: Samples) -> list[bytes]:
        self._meter.made(len(samples))
        return self._cut(self._encoder.encode(samples))

    def _cut(self, data: bytes) -> list[bytes]:
        self._hash.update(data)
        self._size += len(data)
        return list(split(data))


async def _off_loop(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs blocking work in a thread; a caller that is cancelled waits until it is out."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})  # the encoder must not be freed under the thread
        if not running.cancelled():
            running.exception()
        raise
