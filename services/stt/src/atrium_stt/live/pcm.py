"""16-bit PCM of any rate, cut anywhere, to windows of 16 kHz; `session.py` feeds it."""

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from atrium_stt.engines.live import WINDOW, Samples
from atrium_stt.recording import SAMPLE_RATE

_BYTES = 2


class PcmIntake:
    """Takes little-endian mono PCM and gives whole windows."""

    def __init__(self, sample_rate: int) -> None:
        """Begins at the first sample.

        Args:
            sample_rate: Of the PCM, in samples per second.
        """
        self._rate = sample_rate
        self._resampler = (
            None
            if sample_rate == SAMPLE_RATE
            else AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        )
        self._odd = b""
        self._rest: NDArray[np.int16] = np.empty(0, np.int16)
        self._received = 0

    @property
    def seconds(self) -> float:
        """Length of the whole samples received so far."""
        return self._received / self._rate

    def seconds_with(self, size: int) -> float:
        """Length of what was received and `size` bytes more."""
        return (self._received + (len(self._odd) + size) // _BYTES) / self._rate

    def write(self, data: bytes) -> Samples:
        """Takes bytes, which may end within a sample, and returns the windows they fill."""
        data = self._odd + data
        whole = len(data) // _BYTES * _BYTES
        self._odd = data[whole:]
        samples = np.frombuffer(data[:whole], "<i2").astype(np.int16)
        self._received += len(samples)
        return self._windows(self._resampled(samples))

    def finish(self) -> Samples:
        """Returns the rest, filled up with silence; half a sample at the end is dropped."""
        rest = self._windows(self._drained())
        if len(self._rest):
            filled = np.zeros(WINDOW, np.int16)
            filled[: len(self._rest)] = self._rest
            self._rest = np.empty(0, np.int16)
            return np.concatenate([rest, _float(filled)])
        return rest

    def _resampled(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        if self._resampler is None or not len(samples):
            return samples
        frame = AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = self._rate
        return _joined(self._resampler.resample(frame))

    def _drained(self) -> NDArray[np.int16]:
        if self._resampler is None or not self._received:
            return np.empty(0, np.int16)
        return _joined(self._resampler.resample(None))

    def _windows(self, samples: NDArray[np.int16]) -> Samples:
        joined = np.concatenate([self._rest, samples])
        whole = len(joined) // WINDOW * WINDOW
        self._rest = joined[whole:]
        return _float(joined[:whole])


def _joined(frames: list[AudioFrame]) -> NDArray[np.int16]:
    parts = [frame.to_ndarray().reshape(-1).astype(np.int16) for frame in frames]
    return np.concatenate(parts) if parts else np.empty(0, np.int16)


def _float(samples: NDArray[np.int16]) -> Samples:
    return samples.astype(np.float32) / np.float32(32768.0)
