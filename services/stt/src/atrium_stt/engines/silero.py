"""Silero's voice detector with its state kept between calls; `whisper_live.py` asks it.

faster-whisper bundles the network and runs it over whole files only. It is a recurrent
network over windows of 512 samples, each with the last 64 samples of the one before.
"""

import numpy as np
from faster_whisper.vad import get_vad_model  # type: ignore[import-untyped]
from numpy.typing import NDArray

from atrium_stt.engines.live import WINDOW, Samples

_CONTEXT = 64
_STATE = (1, 1, 128)


class SileroListener:
    """Hears one stream of sound. The network itself is shared by all of them."""

    def __init__(self) -> None:
        """Begins in silence."""
        self._session = get_vad_model().session
        self._h: NDArray[np.float32] = np.zeros(_STATE, np.float32)
        self._c: NDArray[np.float32] = np.zeros(_STATE, np.float32)
        self._context: Samples = np.zeros(_CONTEXT, np.float32)

    def probabilities(self, samples: Samples) -> list[float]:
        """Returns the probability of speech in each window of `WINDOW` samples."""
        windows = samples.reshape(-1, WINDOW)
        before = np.vstack([self._context[None], windows[:-1, -_CONTEXT:]])
        found, self._h, self._c = self._session.run(
            None,
            {"input": np.concatenate([before, windows], 1), "h": self._h, "c": self._c},
        )
        self._context = windows[-1, -_CONTEXT:].copy()
        return [float(each) for each in np.asarray(found).reshape(-1)]
