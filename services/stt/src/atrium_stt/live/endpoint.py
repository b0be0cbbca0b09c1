"""Windows of sound and their speech probabilities to utterances; `session.py` feeds it.

The rules of silero's own segmentation (thresholds, padding), one window at a time.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np

from atrium_stt.engines.live import WINDOW, Samples
from atrium_stt.recording import SAMPLE_RATE

_SPEECH = 0.5
_SILENCE = 0.35
_SHORTEST_WINDOWS = 3
_PADDING = int(0.4 * SAMPLE_RATE)
_PATIENT = 6 * SAMPLE_RATE
_EAGER = 15 * SAMPLE_RATE
_SHORTEST_PAUSE = int(0.16 * SAMPLE_RATE)
LONGEST = 28 * SAMPLE_RATE
"""Samples of the longest utterance: a Whisper window less some room."""
_QUIET_SEARCH = 8 * SAMPLE_RATE
_QUIET_FRAME = SAMPLE_RATE // 10


@dataclass(slots=True, eq=False)
class Utterance:
    """A stretch of speech and the sound around it.

    Attributes:
        index: From 0, in order.
        start: First sample of its sound, from the beginning of the audio.
        speech_start: Sample at which the speech begins.
        speech_end: Sample at which it ends, once `ended`.
        ended: No more sound comes.
        voiced: Samples of its sound up to a little after the last speech in it.
        heard_until: Samples of it that its stable text may be about, as its listener
            says; it is not cut before that.
    """

    index: int
    start: int
    speech_start: int
    speech_end: int = 0
    ended: bool = False
    heard_until: int = 0
    length: int = 0
    voiced: int = 0
    _sound: list[Samples] = field(default_factory=list)

    def samples(self) -> Samples:
        """Returns the sound, shape ``(length,)``."""
        if len(self._sound) > 1:
            self._sound = [np.concatenate(self._sound)]
        return self._sound[0]

    def add(self, samples: Samples) -> None:
        """Adds sound."""
        self._sound.append(samples)
        self.length += len(samples)

    def cut(self, length: int) -> Samples:
        """Keeps `length` samples and returns the rest."""
        whole = self.samples()
        self._sound, self.length = [whole[:length]], length
        return whole[length:]


def as_time(samples: int) -> timedelta:
    """Converts a count of samples at 16 kHz, to the millisecond."""
    return timedelta(milliseconds=samples * 1000 // SAMPLE_RATE)


class Endpointer:
    """Finds where utterances begin and end. Holds little more than the present one."""

    def __init__(self, end_silence: timedelta) -> None:
        """Begins in silence.

        Args:
            end_silence: Pause that ends an utterance.
        """
        self._end_silence = int(end_silence.total_seconds() * SAMPLE_RATE)
        self._before: deque[Samples] = deque(maxlen=_PADDING // WINDOW + _SHORTEST_WINDOWS)
        self._position = 0
        self._run = 0
        self._quiet_from: int | None = None
        self._number = 0
        self.current: Utterance | None = None

    def add(self, samples: Samples, probabilities: Sequence[float]) -> Iterator[Utterance]:
        """Takes windows; yields an utterance when it begins and again when it has ended.

        Args:
            samples: Whole windows.
            probabilities: Of speech, for each window.
        """
        for window, probability in zip(samples.reshape(-1, WINDOW), probabilities, strict=True):
            self._position += WINDOW
            if self.current is None:
                yield from self._in_silence(window, probability)
            else:
                yield from self._in_speech(self.current, window, probability)

    def finish(self) -> Iterator[Utterance]:
        """Ends the utterance that is being spoken, if any."""
        if self.current is not None:
            quiet = self._quiet_from
            yield self._end(self.current, self._position if quiet is None else quiet)

    def _in_silence(self, window: Samples, probability: float) -> Iterator[Utterance]:
        self._before.append(window)
        self._run = self._run + 1 if probability >= _SPEECH else 0
        if self._run < _SHORTEST_WINDOWS:
            return
        start = self._position - sum(len(part) for part in self._before)
        self.current = self._begin(start, self._position - self._run * WINDOW)
        for part in self._before:
            self.current.add(part)
        self.current.voiced = self.current.length
        self._before.clear()
        yield self.current

    def _in_speech(
        self, utterance: Utterance, window: Samples, probability: float
    ) -> Iterator[Utterance]:
        utterance.add(window)
        if probability >= _SPEECH:
            self._quiet_from = None
        elif probability < _SILENCE and self._quiet_from is None:
            self._quiet_from = self._position - WINDOW
        quiet = self._quiet_from
        if quiet is None:
            utterance.voiced = utterance.length
        else:
            utterance.voiced = min(utterance.length, quiet + _PADDING - utterance.start)
        if quiet is not None and self._position - quiet >= self._pause(utterance.length):
            yield self._end(utterance, quiet)
        elif utterance.length >= LONGEST:
            yield from self._split(utterance)

    def _pause(self, length: int) -> int:
        """Samples of silence that end an utterance: less and less from 6 s to 15 s."""
        share = min(1.0, max(0.0, (_EAGER - length) / (_EAGER - _PATIENT)))
        shortest = min(_SHORTEST_PAUSE, self._end_silence)
        return int(shortest + (self._end_silence - shortest) * share)

    def _begin(self, start: int, speech_start: int) -> Utterance:
        utterance = Utterance(index=self._number, start=start, speech_start=speech_start)
        self._number += 1
        self._run = 0
        self._quiet_from = None
        return utterance

    def _end(self, utterance: Utterance, speech_end: int) -> Utterance:
        """Ends it a little after its speech; the sound behind that may begin the next."""
        kept = min(utterance.length, speech_end + _PADDING - utterance.start)
        rest = utterance.cut(kept)
        for begin in range(len(rest) % WINDOW, len(rest), WINDOW):
            self._before.append(rest[begin : begin + WINDOW])
        utterance.speech_end = speech_end
        utterance.ended = True
        self.current = None
        self._run = 0
        return utterance

    def _split(self, utterance: Utterance) -> Iterator[Utterance]:
        """Cuts where it is quietest; what was heard of the second part begins the next."""
        search = min(_QUIET_SEARCH, utterance.length - utterance.heard_until)
        frames = max(1, search // _QUIET_FRAME)
        searched = utterance.samples()[-frames * _QUIET_FRAME :].reshape(-1, _QUIET_FRAME)
        quietest = int(np.argmin(np.square(searched).sum(axis=1)))
        place = utterance.length - (frames - quietest) * _QUIET_FRAME + _QUIET_FRAME // 2
        rest = utterance.cut(place)
        utterance.speech_end = utterance.start + place
        utterance.ended = True
        quiet = self._quiet_from
        self.current = None
        yield utterance
        self.current = self._begin(utterance.speech_end, utterance.speech_end)
        self.current.add(rest)
        self._quiet_from = quiet
        yield self.current
