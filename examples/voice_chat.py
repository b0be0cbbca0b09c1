"""Talks with Atrium: a spoken question in, a spoken answer out, streamed at each step.

    python examples/voice_chat.py --in question.wav --out answer.wav

The question is transcribed; the answer's words stream from the chat model; each sentence
is sent to be spoken as soon as it is complete, while the next one is still being written;
audio is kept as it arrives. Everything goes through the gateway by the official client
(``pip install openai``), so the same program talks with any OpenAI-compatible server.
"""

import argparse
import asyncio
import os
import re
import sys
import time
import wave
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from openai import APIError, AsyncOpenAI

STT_MODEL, CHAT_MODEL, TTS_MODEL = "whisper-1", "gpt-4o-mini", "tts-1"
SYSTEM = "You are a voice assistant. Answer in one or two short, plain sentences."
SAMPLE_RATE = 24_000
"""Of `response_format="pcm"`: 16-bit mono."""
SENTENCE_END = re.compile(r"(?<=.{12}[.!?])\s+", re.DOTALL)
"""A piece of fewer than 13 characters, such as "Dr.", is not worth a request of its own."""

Audio = asyncio.Queue[bytes | None]
"""The speech of one sentence, piece by piece; ``None`` ends it."""


@dataclass
class Times:
    """Seconds from the beginning of the conversation to the first time that a thing happened."""

    clock: Callable[[], float] = time.perf_counter
    seen: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._begin = self.clock()

    def note(self, event: str) -> None:
        """Notes when `event` happened; only its first time counts."""
        self.seen.setdefault(event, self.clock() - self._begin)

    def __str__(self) -> str:
        return ", ".join(f"{event} after {seconds:.2f} s" for event, seconds in self.seen.items())


async def hear(client: AsyncOpenAI, question: Path) -> str:
    """Transcribes a recording in any format; its text comes segment by segment."""
    events = await client.audio.transcriptions.create(model=STT_MODEL, file=question, stream=True)
    heard = ""
    async for event in events:
        if event.type == "transcript.text.delta":
            heard += event.delta
    return heard.strip()


async def think(client: AsyncOpenAI, question: str) -> AsyncIterator[str]:
    """Streams the words of the answer."""
    chunks = await client.chat.completions.create(
        model=CHAT_MODEL,
        messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}],
        max_tokens=120,
        stream=True,
    )
    async for chunk in chunks:
        if chunk.choices and (words := chunk.choices[0].delta.content):
            yield words


async def sentences(words: AsyncIterator[str]) -> AsyncIterator[str]:
    """Cuts a stream of words into sentences; each leaves as soon as the next one begins."""
    rest = ""
    async for piece in words:
        *complete, rest = SENTENCE_END.split(rest + piece)
        for sentence in complete:
            yield sentence
    if rest.strip():
        yield rest.strip()


async def speak(client: AsyncOpenAI, sentence: str, voice: str, audio: Audio) -> None:
    """Puts the speech of `sentence` into `audio` as it arrives."""
    asked = client.audio.speech.with_streaming_response.create(
        model=TTS_MODEL, voice=voice, input=sentence, response_format="pcm"
    )
    async with asked as answer:
        async for piece in answer.iter_bytes():
            audio.put_nowait(piece)
    audio.put_nowait(None)


async def listen(spoken: "asyncio.Queue[Audio | None]", out: Path, times: Times) -> None:
    """Writes the sentences' audio to `out`, in their order; a player would play it here."""
    with wave.open(str(out), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        while (audio := await spoken.get()) is not None:
            while (piece := await audio.get()) is not None:
                times.note("first audio")
                file.writeframesraw(piece)


async def converse(client: AsyncOpenAI, question: Path, out: Path, voice: str) -> None:
    """One question and its answer; prints what was heard and answered, and the times."""
    times = Times()
    heard = await hear(client, question)
    times.note("question heard")
    print(f"heard:    {heard}")
    if not heard:
        sys.exit("voice_chat: nothing was said")
    spoken: asyncio.Queue[Audio | None] = asyncio.Queue()
    print("answered:", end="", flush=True)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listen(spoken, out, times))
        async for sentence in sentences(think(client, heard)):
            times.note("first sentence")
            print(f" {sentence}", end="", flush=True)
            audio = Audio()
            spoken.put_nowait(audio)
            tasks.create_task(speak(client, sentence, voice, audio))
        spoken.put_nowait(None)
    times.note("all audio")
    print(f"\n{times}")


async def connect(options: argparse.Namespace, key: str) -> None:
    """Opens the client and runs one conversation."""
    async with AsyncOpenAI(base_url=f"{options.url}/v1", api_key=key) as client:
        await converse(client, options.question, options.out, options.voice)


def main() -> None:
    """Reads the command line; leaves with one line where the server refuses."""
    parser = argparse.ArgumentParser(description="Asks Atrium a spoken question.")
    parser.add_argument("--in", dest="question", type=Path, required=True, help="audio file")
    parser.add_argument("--out", type=Path, required=True, help="WAV file of the answer")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the gateway (%(default)s)")
    parser.add_argument("--voice", default="alloy", help="voice of the answer (%(default)s)")
    options = parser.parse_args()
    # `make run` keeps a key for development in .atrium/dev.key.
    key = os.environ.get("ATRIUM_KEY") or Path(".atrium/dev.key").read_text().strip()
    try:
        asyncio.run(connect(options, key))
    except* APIError as refused:
        sys.exit(f"voice_chat: {refused.exceptions[0]}")


if __name__ == "__main__":
    main()
