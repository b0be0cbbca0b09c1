"""The fake engine's ear: loud is speech, and a word for each second; `fake.py` opens it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import numpy as np

from atrium_stt.domain import LiveJob, Segment, Task, Word
from atrium_stt.engines.live import WINDOW, Heard, Samples
from atrium_stt.recording import SAMPLE_RATE

_LOUD = 0.01
_STEMS = {Task.TRANSCRIBE: "word", Task.TRANSLATE: "translated"}


class FakeLiveTranscriber:
    """Hears " word0 word1" and so on in sound, one word for each whole second of it.

    A draft says half a word for a second that has begun, so that it changes with the next.
    The sound of an utterance holds up to 0.4 s of silence at either end.
    """

    def __init__(
        self,
        job: LiveJob,
        *,
        language: str,
        pause: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0),
    ) -> None:
        """Listens for a job.

        Args:
            job: What to do.
            language: That it says it detects.
            pause: Awaited in each decoding.
        """
        self._job = job.transcription
        self._language = language
        self._pause = pause

    def probabilities(self, samples: Samples) -> Sequence[float]:
        """Gives 1 for a window over -40 dB, else 0."""
        loud = np.sqrt(np.square(samples.reshape(-1, WINDOW)).mean(axis=1)) > _LOUD
        return [float(each) for each in loud]

    async def draft(self, samples: Samples, *, stable: str) -> Sequence[str]:
        """Gives the words after `stable`."""
        await self._pause()
        whole, rest = divmod(len(samples), SAMPLE_RATE)
        words = self._words(whole)
        if rest:
            words.append(" w")
        return words[len(stable.split()) :]

    async def transcribe(self, samples: Samples, *, stable: str) -> Heard | None:
        """Gives a word for each second, and always one."""
        await self._pause()
        texts = self._words(max(1, len(samples) // SAMPLE_RATE, len(stable.split())))
        step = timedelta(seconds=len(samples) / SAMPLE_RATE) / len(texts)
        words = tuple(
            Word(start=i * step, end=(i + 1) * step, text=text, probability=0.99)
            for i, text in enumerate(texts)
        )
        segment = Segment(
            index=0,
            start=timedelta(),
            end=step * len(texts),
            text="".join(texts),
            words=words if self._job.word_timestamps else (),
            average_logprob=-0.1,
            no_speech_probability=0.01,
            compression_ratio=1.0,
            temperature=self._job.temperature or 0.0,
            tokens=tuple(range(len(texts))),
        )
        given = self._job.language is not None
        return Heard(
            segment=segment,
            language=self._job.language or self._language,
            language_probability=1.0 if given else 0.9,
        )

    def _words(self, count: int) -> list[str]:
        return [f" {_STEMS[self._job.task]}{number}" for number in range(count)]
