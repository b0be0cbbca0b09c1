"""What the listening and the decoding half of a session share."""

import asyncio
from collections import deque

from atrium_stt.live.endpoint import Utterance
from atrium_stt.recording import SAMPLE_RATE

_MOST_WAITING = 60 * SAMPLE_RATE


class Talk:
    """Utterances from their beginning until they are decoded.

    Attributes:
        current: The one that is being spoken.
        ended: Those whose final text is due, oldest first.
        over: No more audio comes.
        news: Set when any of these has changed; whoever waits for it clears it.
    """

    def __init__(self) -> None:
        self.current: Utterance | None = None
        self.ended: deque[Utterance] = deque()
        self.over = False
        self.news = asyncio.Event()
        self._room = asyncio.Event()

    def begin(self, utterance: Utterance) -> None:
        """Somebody began to speak."""
        self.current = utterance
        self.news.set()

    def end(self, utterance: Utterance) -> None:
        """The utterance's sound is complete."""
        self.current = None
        self.ended.append(utterance)
        self.news.set()

    def close(self) -> None:
        """Says that no more audio comes."""
        self.over = True
        self.news.set()

    def decoded(self) -> None:
        """Drops the oldest of those that had ended, with its sound."""
        self.ended.popleft()
        self._room.set()

    async def room(self) -> None:
        """Waits while a minute of speech is not decoded: who sends faster is held up."""
        while sum(utterance.length for utterance in self.ended) > _MOST_WAITING:
            self._room.clear()
            await self._room.wait()
