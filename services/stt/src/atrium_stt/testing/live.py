"""Plays a file in real time and records when what was heard; for live tests and the bench.

It knows no wire: give `frames` to a call of any kind and tell `LagRecorder` what comes back.

    recorder = LagRecorder()
    async for frame in frames(path, recorder=recorder):
        await send(frame)
    ...  # meanwhile, for each partial or final: recorder.heard(end, text)
"""

import asyncio
import time
import wave
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Heard:
    """Something that was heard.

    Attributes:
        at: Seconds since the first frame was played.
        until: Seconds of the audio up to which it says what was said.
        text: What was said.
    """

    at: float
    until: float
    text: str

    @property
    def lag(self) -> float:
        """Seconds from when the sound was played until its text was there."""
        return self.at - self.until


@dataclass(slots=True)
class LagRecorder:
    """Compares when sound was played with when its text came.

    Attributes:
        clock: Monotonic seconds.
        heard_so_far: In the order in which it came.
    """

    clock: Callable[[], float] = time.monotonic
    heard_so_far: list[Heard] = field(default_factory=list)
    _started: float = 0.0

    def start(self) -> None:
        """The first frame is played now."""
        self._started = self.clock()

    def heard(self, until: float, text: str) -> Heard:
        """Notes text of the sound up to `until` seconds, which came just now."""
        heard = Heard(self.clock() - self._started, until, text)
        self.heard_so_far.append(heard)
        return heard

    @property
    def lags(self) -> list[float]:
        """Seconds, of each."""
        return [heard.lag for heard in self.heard_so_far]

    @property
    def words_by_time(self) -> list[tuple[float, int]]:
        """When how many words were known: for the lag of each word behind its own time."""
        return [(heard.at, len(heard.text.split())) for heard in self.heard_so_far]


def sample_rate(path: Path) -> int:
    """Returns the samples per second of a WAV file."""
    with wave.open(str(path)) as file:
        rate: int = file.getframerate()
    return rate


async def frames(
    path: Path,
    *,
    seconds: float = 0.1,
    speed: float = 1.0,
    recorder: LagRecorder | None = None,
) -> AsyncIterator[bytes]:
    """Yields a 16-bit mono WAV file's PCM as a microphone would.

    A frame comes when its sound is over; one that is late does not delay the next.

    Args:
        path: The file.
        seconds: Length of a frame.
        speed: Times real time; infinity does not wait at all.
        recorder: Told when the first frame begins.
    """
    with wave.open(str(path)) as file:
        size = max(1, int(seconds * file.getframerate()))
        if recorder is not None:
            recorder.start()
        begun, sent = time.monotonic(), 0
        while data := file.readframes(size):
            sent += len(data) // 2
            due = begun + sent / file.getframerate() / speed
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            yield data
