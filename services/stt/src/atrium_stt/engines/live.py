"""What an engine offers to live transcription; `live/` cuts, schedules and reports.

An engine hears whether somebody speaks and makes text of a stretch of speech, quickly
or well. It knows nothing of sessions, turns or the order of messages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atrium_stt.domain import Segment

WINDOW = 512
"""Samples (at 16 kHz) that a speech probability is of: 32 ms."""

Samples = NDArray[np.float32]
"""Mono sound at 16 kHz, -1 to 1, one dimension."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the final decoding of a stretch of speech gave.

    Attributes:
        segment: Index 0; times of segment and words from the start of the stretch.
        language: Language that was spoken.
        language_probability: Its confidence if it was detected, 1 if it was given.
    """

    segment: Segment
    language: str
    language_probability: float


class LiveTranscriber(Protocol):
    """Listens to one speaker; holds what must be kept between stretches of speech.

    `probabilities` is called in order from one thread at a time, `draft` and
    `transcribe` never twice at once.
    """

    def probabilities(self, samples: Samples) -> Sequence[float]:
        """Tells how likely each window of the sound that comes next is speech.

        Blocks for well under a millisecond per window.

        Args:
            samples: A whole number of windows of `WINDOW` samples.
        """
        ...

    async def draft(self, samples: Samples, *, stable: str) -> Sequence[str]:
        """Makes a quick text of speech that is still going on.

        Args:
            samples: The speech so far, up to 30 s.
            stable: Text that its beginning is known to be.

        Returns:
            The words after `stable`, each with any leading space; none if the decoding
            fails Whisper's own checks.
        """
        ...

    async def transcribe(self, samples: Samples, *, stable: str) -> Heard | None:
        """Makes the final text of a stretch of speech, as well as the job asks for.

        Args:
            samples: The speech, up to 30 s.
            stable: Text that was promised already: the result begins with it.

        Returns:
            The text, or ``None`` if nothing was said.
        """
        ...
