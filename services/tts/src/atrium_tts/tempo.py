"""Makes speech faster or slower and keeps its pitch. `speech_output.py` calls this.

For what an engine can't do by itself: libavfilter's `atempo` (WSOLA, waveform similarity
overlap-add).
"""

import math

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.filter import Graph

from atrium_tts.engines.base import Samples

_STEP = 2.0
"""Largest factor of one filter; above it `atempo` leaves samples out instead of blending."""

_SAME = 0.005
"""A change of tempo below this is not heard, so it isn't made."""


def is_heard(factor: float) -> bool:
    """Tells whether a factor on the tempo is worth a stretch."""
    return abs(factor - 1.0) >= _SAME


class TimeStretcher:
    """Stretches one utterance. Blocks; one thread at a time may use it."""

    def __init__(self, factor: float, *, sample_rate: int) -> None:
        """Builds the filter.

        Args:
            factor: Tempo, above 0: 2 halves the length.
            sample_rate: Samples per second.
        """
        self._rate = sample_rate
        self._graph = Graph()
        links = [self._graph.add_abuffer(sample_rate=sample_rate, format="flt", layout="mono")]
        count = max(1, math.ceil(abs(math.log(factor, _STEP)) - 1e-9))
        step = factor ** (1.0 / count)
        links += [self._graph.add("atempo", f"{step:.9f}") for _ in range(count)]
        links.append(self._graph.add("abuffersink"))
        self._graph.link_nodes(*links).configure()
        self._given = 0
        self._made = 0
        self._factor = factor

    def stretch(self, samples: Samples) -> Samples:
        """Takes samples and returns those that are ready, which may be none."""
        if not len(samples):
            return samples
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(samples[None], dtype=np.float32), format="flt", layout="mono"
        )
        frame.sample_rate, frame.pts = self._rate, self._given
        self._given += len(samples)
        self._graph.push(frame)
        return self._ready()

    def finish(self) -> Samples:
        """Returns the last samples, so that the whole is as long as it should be."""
        if not self._given:
            return np.zeros(0, np.float32)
        self._graph.push(None)
        left = round(self._given / self._factor) - self._made
        last = self._ready()[: max(0, left)]
        return np.concatenate([last, np.zeros(max(0, left) - len(last), np.float32)])

    def _ready(self) -> Samples:
        parts: list[Samples] = []
        while True:
            try:
                frame = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                break
            parts.append(frame.to_ndarray()[0])
        made = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        self._made += len(made)
        return made
