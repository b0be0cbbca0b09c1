"""Live transcription as a client with a microphone does it: the official client's WebSocket."""

import asyncio
import base64
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

from tests.kit.audio import PCM_RATE, Samples

FRAME_SECONDS = 0.1
_TRANSCRIPTION = "conversation.item.input_audio_transcription"


@dataclass
class LiveText:
    """What a session said; times in seconds since its first frame was sent.

    Attributes:
        said: (time, item, text) of each delta.
        transcripts: By item, in the order in which they were spoken.
        seconds: Audio that the session says it was charged for.
    """

    said: list[tuple[float, str, str]] = field(default_factory=list)
    transcripts: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """The whole transcript."""
        return " ".join(each.strip() for each in self.transcripts.values() if each.strip())

    def deltas(self, item: str) -> str:
        """The deltas of an item, joined."""
        return "".join(text for _, of, text in self.said if of == item)

    def words(self) -> list[tuple[str, float]]:
        """Every word that deltas brought, with the time at which it was complete."""
        found = []
        for item in self.transcripts:
            spelled = [
                (character, when)
                for when, of, text in self.said
                if of == item
                for character in text
            ]
            text = "".join(character for character, _ in spelled)
            for match in re.finditer(r"\S+", text):
                found.append((match[0], spelled[match.end() - 1][1]))
        return found


def lags(live: LiveText, spoken: Sequence[tuple[str, float]]) -> list[float]:
    """Seconds from the end of each word to its coming, where both texts have the word.

    Args:
        live: A session that was spoken into in real time.
        spoken: Words and their ends in the audio, e.g. of the whole recording's transcript.
    """
    heard = live.words()
    alike = SequenceMatcher(
        None, [_plain(word) for word, _ in heard], [_plain(word) for word, _ in spoken], False
    )
    return [
        heard[block.a + step][1] - spoken[block.b + step][1]
        for block in alike.get_matching_blocks()
        for step in range(block.size)
    ]


def _plain(word: str) -> str:
    return re.sub(r"\W", "", word).lower()


async def transcribe_live(
    client: AsyncOpenAI, samples: Samples, *, model: str, pace: float | None = 1.0
) -> LiveText:
    """Speaks `samples` (of `PCM_RATE`) into a session and returns what came back.

    Args:
        client: Whose session it is.
        samples: The audio.
        model: Transcription model.
        pace: Seconds of audio per second; ``None`` sends as fast as it is taken.
    """
    query: dict[str, Any] = {"intent": "transcription"}
    async with client.realtime.connect(extra_query=query) as connection:
        session = {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": PCM_RATE},
                    "transcription": {"model": model, "language": "en"},
                    "turn_detection": {"type": "server_vad"},
                }
            },
        }
        await connection.session.update(session=session)  # type: ignore[arg-type]
        began = time.perf_counter()
        sending = asyncio.create_task(_speak(connection, samples, pace, began))
        try:
            return await _listen(connection, began)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _speak(
    connection: AsyncRealtimeConnection, samples: Samples, pace: float | None, began: float
) -> None:
    frame = int(FRAME_SECONDS * PCM_RATE)
    for number, start in enumerate(range(0, len(samples), frame)):
        if pace is not None:
            due = began + (number + 1) * FRAME_SECONDS / pace
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        audio = base64.b64encode(samples[start : start + frame].tobytes()).decode()
        await connection.input_audio_buffer.append(audio=audio)
    await connection.input_audio_buffer.commit()
    # Its answer comes after the commit's: then no item is added any more.
    await connection.input_audio_buffer.clear()


async def _listen(connection: AsyncRealtimeConnection, began: float) -> LiveText:
    heard = LiveText()
    complete: set[str] = set()
    cleared = False
    async for event in connection:
        now = time.perf_counter() - began
        if event.type == "error":
            if event.error.code != "input_audio_buffer_commit_empty":
                raise RuntimeError(event.error.message)
        elif event.type == "input_audio_buffer.cleared":
            cleared = True
        elif event.type == "input_audio_buffer.committed":
            heard.transcripts.setdefault(event.item_id, "")
        elif event.type == f"{_TRANSCRIPTION}.delta":
            heard.said.append((now, event.item_id, event.delta or ""))
        elif event.type == f"{_TRANSCRIPTION}.completed":
            heard.transcripts[event.item_id] = event.transcript
            heard.seconds += getattr(event.usage, "seconds", 0.0)
            complete.add(event.item_id)
        elif event.type == f"{_TRANSCRIPTION}.failed":
            raise RuntimeError(event.error.message)
        if cleared and complete >= set(heard.transcripts):
            break
    return heard
