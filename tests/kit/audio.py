"""Audio in memory: what a test receives, measured, and what it sends, made."""

import io
import wave
from collections.abc import Sequence

import av
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]
PCM_RATE = 24_000
"""Samples per second of OpenAI's `pcm` format, in both directions."""
_PAUSE_SECONDS = 0.6


def pcm(data: bytes) -> Samples:
    """The samples of headless 16-bit PCM."""
    return np.frombuffer(data, np.int16)


def decoded(data: bytes, *, rate: int = PCM_RATE) -> Samples:
    """The samples of a file in any format, at `rate`."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
    with av.open(io.BytesIO(data)) as container:
        frames = [
            ready.to_ndarray()
            for frame in container.decode(audio=0)
            for ready in resampler.resample(frame)
        ]
    frames += [ready.to_ndarray() for ready in resampler.resample(None)]
    return np.concatenate(frames, axis=1)[0]


def wav(samples: Samples, *, rate: int = PCM_RATE) -> bytes:
    """A WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.tobytes())
    return file.getvalue()


def with_pauses(parts: Sequence[Samples], *, rate: int = PCM_RATE) -> Samples:
    """The parts in a row, with a silence after each."""
    silence = np.zeros(int(_PAUSE_SECONDS * rate), np.int16)
    return np.concatenate([piece for part in parts for piece in (part, silence)])
