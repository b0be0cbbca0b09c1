"""One live caller: listens to the audio, decodes in turns, reports. `servicer.py` runs it.

Two tasks work side by side. One *listens* (`listening.py`): it takes the caller's chunks,
finds speech and cuts utterances. The other *decodes* (`decoding.py`): the final text of each
utterance that has ended, in order, and in between drafts of the one that is being spoken.
Each decoding takes a turn of the engine. Finals wait for theirs; a draft is only begun where
nobody else waits, and not before the last one has left the engine half the time it took, so
under load partials become rarer and nothing queues up.

However the audio ends (half-close, a limit, a caller that stalls), what was heard is
transcribed first, then the error is raised.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace

from atrium_common.domain import Usage
from atrium_common.errors import AtriumError, DeadlineExceeded
from atrium_stt.domain import LiveEvent, LiveJob
from atrium_stt.engines.live import LiveTranscriber
from atrium_stt.live.decoding import Decoder
from atrium_stt.live.listening import Cover, Listener, LiveLimits
from atrium_stt.live.outbox import Outbox
from atrium_stt.live.talk import Talk
from atrium_stt.live.turns import Turns

_WATCH_SECONDS = 0.25
_WATCHES_PER_LIMIT = 8


class LiveSession:
    """Transcribes one caller's audio while it comes in."""

    def __init__(
        self,
        job: LiveJob,
        transcriber: LiveTranscriber,
        turns: Turns,
        *,
        usage: Usage,
        cover: Cover,
        limits: LiveLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares a session; `run` does the work.

        Args:
            job: What to do.
            transcriber: The engine's ear for this caller.
            turns: Gives the engine to one decoding at a time.
            usage: Model, digest and engine that stand in every event.
            cover: Asked before audio is listened to that is over what it covered; one
                `limits.reserve` is covered from the start.
            limits: How long it may last and stand still.
            clock: Monotonic seconds.
        """
        self._turns = turns
        self._usage = usage
        self._limits = limits
        self._outbox = Outbox(clock=clock)
        talk = Talk()
        self._listener = Listener(
            job, transcriber, talk, self._outbox, cover=cover, limits=limits, clock=clock
        )
        self._decoder = Decoder(job, transcriber, turns, talk, self._outbox, clock=clock)
        self._stall: AtriumError | None = None

    @property
    def usage(self) -> Usage:
        """What was consumed so far."""
        return replace(
            self._usage,
            queue_time=self._turns.queue_time,
            inference_time=self._turns.inference_time,
            input_audio=self._listener.listened,
        )

    async def run(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[LiveEvent, None]:
        """Yields what is heard in `chunks` until they end and all of it is decoded.

        Closing it stops the work and frees what it holds; a decoding that the engine has
        begun runs to its end there. Iterate, and close, in one task.

        Raises:
            DeadlineExceeded: The caller sent nothing, or read nothing, for too long
                (LIVE_IDLE, LIVE_NOT_READ), or the session lasted too long (LIVE_TOO_LONG).
            AtriumError: What `chunks` and `cover` raise.
        """
        reader = asyncio.current_task()
        work = asyncio.create_task(self._work(chunks))
        work.add_done_callback(lambda _: self._outbox.close())
        watch = asyncio.create_task(self._watch(reader))
        try:
            while (taken := await self._outbox.take()) is not None:
                yield LiveEvent(step=taken[0], usage=self.usage)
            await work
        except (GeneratorExit, asyncio.CancelledError):
            if self._stall is None or reader is None:
                raise
            # `_watch` has cancelled the reader, which stood still in a write.
            reader.uncancel()
            raise self._stall from None
        finally:
            await _cancelled(work, watch)

    async def _work(self, chunks: AsyncIterator[bytes]) -> None:
        """Listens and decodes until both are done, or one fails."""
        listening = asyncio.create_task(self._listener.run(chunks))
        decoding = asyncio.create_task(self._decoder.run())
        try:
            await asyncio.wait({listening, decoding}, return_when=asyncio.FIRST_EXCEPTION)
            if decoding.done():
                decoding.result()
            reason = listening.result()
        finally:
            await _cancelled(listening, decoding)
            if self._listener.listened:
                self._outbox.put(None)  # the whole usage, also where an error follows
        if reason is not None:
            raise reason

    async def _watch(self, reader: "asyncio.Task[object] | None") -> None:
        """Ends the session when its reader takes nothing for too long."""
        limit = self._limits.idle.total_seconds()
        while True:
            await asyncio.sleep(min(_WATCH_SECONDS, limit / _WATCHES_PER_LIMIT))
            if self._outbox.unread_seconds >= limit:
                break
        self._stall = DeadlineExceeded(
            "The results of the live session are not read.", reason="LIVE_NOT_READ"
        )
        if reader is not None:
            reader.cancel()


async def _cancelled(*tasks: "asyncio.Task[object]") -> None:
    """Cancels tasks and waits until they have ended; what they raise is dropped."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()
