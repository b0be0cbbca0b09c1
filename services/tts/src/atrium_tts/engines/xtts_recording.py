"""Whether there is speech in a recording at all; `XttsModel.clone` asks before it listens."""

import numpy as np

from atrium_common.errors import MediaError
from atrium_tts.engines.base import Samples

_FRAME = 0.025
"""Seconds over which loudness is measured."""

_QUIET = 0.003
"""Loudness (root mean square, full scale 1) of a silent room, -50 dB."""

_LEAST_SPEECH = 1.0
"""Seconds of sound that a recording must have."""


def check_recording(samples: Samples, sample_rate: int) -> None:
    """Refuses a recording in which nobody speaks.

    Counts frames of 25 ms that are neither quiet by themselves nor 40 dB under the loudest.

    Raises:
        MediaError: There is less than a second of sound in it, or no sound at all.
    """
    frame = max(1, round(sample_rate * _FRAME))
    frames = samples[: len(samples) // frame * frame].reshape(-1, frame)
    if not np.isfinite(samples).all():
        raise MediaError("The recording holds values that are no sound.", field="audio")
    loudness = np.sqrt((frames.astype(np.float64) ** 2).mean(axis=1))
    floor = max(_QUIET, 0.01 * float(loudness.max(initial=0.0)))
    if (loudness > floor).sum() * _FRAME < _LEAST_SPEECH:
        raise MediaError("There is no speech in the recording.", field="audio", reason="NO_SPEECH")
