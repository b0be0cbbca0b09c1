"""Cuts a recording into the stretches that Whisper is given; `faster_whisper.py` calls this.

faster-whisper's own loader holds a whole file's samples and spectrogram in memory and
can't be stopped while it looks for speech. Here a long recording is looked at in blocks.
For a recording of one block the result is the library's, to the sample.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from faster_whisper.vad import VadOptions, get_speech_timestamps  # type: ignore[import-untyped]
from numpy.typing import NDArray

from atrium_common.work import CancelToken
from atrium_stt.recording import SAMPLE_RATE, Recording

WINDOW_SECONDS = 30
"""Whisper's window."""

_BLOCK = 300 * SAMPLE_RATE
_QUIET_SEARCH = 30 * SAMPLE_RATE
_QUIET_FRAME = SAMPLE_RATE // 10


@dataclass(frozen=True, slots=True)
class Span:
    """Samples `start` up to `stop` of a recording."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Samples."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Part:
    """Spans that are transcribed as if they followed each other without a gap.

    Attributes:
        spans: In order; at least one.
        offset: Samples of speech before this part.
    """

    spans: tuple[Span, ...]
    offset: int

    @property
    def length(self) -> int:
        """Samples of speech."""
        return sum(span.length for span in self.spans)

    def samples(self, recording: Recording) -> NDArray[np.float32]:
        """Returns the speech, shape ``(length,)``."""
        return np.concatenate([recording.samples(span.start, span.stop) for span in self.spans])


def batch_vad_options() -> VadOptions:
    """What faster-whisper's batched pipeline cuts with: short pauses, one window at most."""
    return VadOptions(max_speech_duration_s=WINDOW_SECONDS, min_silence_duration_ms=160)


def find_speech(
    recording: Recording, options: VadOptions, token: CancelToken, *, block: int = _BLOCK
) -> list[Span]:
    """Finds where somebody speaks, block by block.

    Speech that runs into the end of a block is looked at again as the start of the next,
    so that no word is cut at a block's edge.

    Args:
        recording: The audio.
        options: Silero's options.
        token: Asked before every block.
        block: Samples looked at together, more than a window.

    Raises:
        Cancelled: The caller left.
    """
    spans: list[Span] = []
    start, total = 0, recording.sample_count
    while start < total:
        token.raise_if_cancelled()
        stop = min(start + block, total)
        found = [
            Span(start + chunk["start"], start + chunk["end"])
            for chunk in get_speech_timestamps(recording.samples(start, stop), options)
        ]
        start = stop
        if found and found[-1].stop == stop < total and found[-1].start > stop - block // 2:
            start = found.pop().start
        spans.extend(found)
    return spans


def group(spans: Iterable[Span], *, longest: int) -> list[Part]:
    """Joins spans into parts of at most `longest` samples; a longer span is a part alone."""
    parts: list[Part] = []
    pending: list[Span] = []
    length = offset = 0
    for span in spans:
        if pending and length + span.length > longest:
            parts.append(Part(tuple(pending), offset))
            offset += length
            pending, length = [], 0
        pending.append(span)
        length += span.length
    if pending:
        parts.append(Part(tuple(pending), offset))
    return parts


def cut(recording: Recording, spans: Sequence[Span], *, longest: int) -> Iterator[Span]:
    """Cuts spans over `longest` samples at the quietest tenth of a second before that."""
    for span in spans:
        start = span.start
        while span.stop - start > longest:
            end = start + longest
            searched = min(_QUIET_SEARCH, longest // 2) // _QUIET_FRAME * _QUIET_FRAME
            sound = recording.samples(end - searched, end).reshape(-1, _QUIET_FRAME)
            quietest = int(np.argmin(np.square(sound).sum(axis=1)))
            middle = end - searched + quietest * _QUIET_FRAME + _QUIET_FRAME // 2
            yield Span(start, middle)
            start = middle
        yield Span(start, span.stop)
