"""The half of a session that listens: chunks in, utterances out. `session.py` runs it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from atrium_common.errors import AtriumError, DeadlineExceeded, QuotaExceeded
from atrium_stt.domain import LiveJob, SpeechStarted, SpeechStopped
from atrium_stt.engines.live import LiveTranscriber, Samples
from atrium_stt.live.endpoint import Endpointer, Utterance, as_time
from atrium_stt.live.outbox import Outbox
from atrium_stt.live.pcm import PcmIntake
from atrium_stt.live.talk import Talk

_USAGE_EVERY_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveLimits:
    """How long a session may last and stand still.

    Attributes:
        duration: Longest session, of audio and by the clock.
        idle: Longest wait for the caller's next chunk, and for it to read an answer.
        reserve: Audio that the caller's reservation grows by, above 0.
    """

    duration: timedelta = timedelta(hours=4)
    idle: timedelta = timedelta(seconds=60)
    reserve: timedelta = timedelta(minutes=1)


Cover = Callable[[timedelta], Awaitable[None]]
"""Makes sure that the caller may use so much audio in all.

It raises `QuotaExceeded` if that does not fit into the caller's limits.
"""


class Listener:
    """Takes chunks until they end or a limit ends them.

    Attributes:
        listened: Audio that was listened to; what the caller is charged.
    """

    def __init__(
        self,
        job: LiveJob,
        transcriber: LiveTranscriber,
        talk: Talk,
        outbox: Outbox,
        *,
        cover: Cover,
        limits: LiveLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares to listen; see `LiveSession`."""
        self._transcriber = transcriber
        self._talk = talk
        self._outbox = outbox
        self._cover = cover
        self._limits = limits
        self._clock = clock
        self._pcm = PcmIntake(job.sample_rate)
        self._endpointer = Endpointer(job.end_silence)
        self._covered = limits.reserve
        self._told = 0.0
        self.listened = timedelta()

    async def run(self, chunks: AsyncIterator[bytes]) -> AtriumError | None:
        """Listens to all of it.

        Returns:
            Why the audio ended before its caller said so, to be raised once what was
            heard is transcribed; ``None`` if it did say so.

        Raises:
            AtriumError: What `chunks` raises, and `Cover` apart from `QuotaExceeded`.
        """
        reason = await self._listen(chunks)
        await self._hear(await asyncio.to_thread(self._pcm.finish))
        self._report(self._endpointer.finish())
        self._talk.close()
        return reason

    async def _listen(self, chunks: AsyncIterator[bytes]) -> AtriumError | None:
        until = self._clock() + self._limits.duration.total_seconds()
        while True:
            await self._talk.room()
            await self._outbox.room()
            idle = self._limits.idle.total_seconds()
            wait = min(idle, until - self._clock())
            try:
                async with asyncio.timeout(wait):
                    chunk = await anext(chunks, None)
            except TimeoutError:
                return _idle(idle) if wait == idle else self._too_long()
            if chunk is None:
                return None
            refusal = await self._admit(len(chunk))
            if refusal is not None:
                return refusal
            await self._hear(await asyncio.to_thread(self._pcm.write, chunk))

    async def _admit(self, size: int) -> AtriumError | None:
        """Covers the next bytes, or returns what refuses them."""
        total = timedelta(seconds=self._pcm.seconds_with(size))
        if total > self._limits.duration:
            return self._too_long()
        while total > self._covered:
            grown = self._covered + self._limits.reserve
            try:
                await self._cover(grown)
            except QuotaExceeded as refusal:
                return refusal
            self._covered = grown
        return None

    async def _hear(self, samples: Samples) -> None:
        if len(samples):
            found = await asyncio.to_thread(self._transcriber.probabilities, samples)
            # Window by window, so that the state of the talk is right at each report.
            self._report(self._endpointer.add(samples, found))
        seconds = self._pcm.seconds
        self.listened = timedelta(seconds=seconds)
        if seconds - self._told >= _USAGE_EVERY_SECONDS:
            self._told = seconds
            self._outbox.put(None)

    def _report(self, utterances: Iterable[Utterance]) -> None:
        for utterance in utterances:
            if utterance.ended:
                end = as_time(utterance.speech_end)
                self._outbox.put(SpeechStopped(index=utterance.index, end=end))
                self._talk.end(utterance)
            else:
                start = as_time(utterance.speech_start)
                self._outbox.put(SpeechStarted(index=utterance.index, start=start))
                self._talk.begin(utterance)

    def _too_long(self) -> AtriumError:
        return DeadlineExceeded(
            f"A live session lasts at most {self._limits.duration.total_seconds():.0f} s; "
            "open a new one.",
            reason="LIVE_TOO_LONG",
        )


def _idle(seconds: float) -> AtriumError:
    return DeadlineExceeded(
        f"No audio came for {seconds:.0f} s; send silence while nobody speaks, or half-close.",
        reason="LIVE_IDLE",
    )
