"""What the suite adds to speech: real-time factor, first audio, the way of each chunk.

The engine stands alone in a process of its own, on the same threads and with the same
sentences, and takes turns with the suite.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import grpc
import httpx

from atrium.tts.v1 import tts_pb2, tts_pb2_grpc
from tests.bench import hearing
from tests.bench.models import ONE_THREAD
from tests.bench.report import HERE, Worker, percentile, spread, table, worker
from tests.bench.stamps import CHUNK_BYTES, CHUNKS, STAMP_BYTES
from tests.kit.audio import PCM_RATE
from tests.kit.suite import MODELS, ROOT, Suite, free_ports, running_suite, wait_until

MODEL, VOICE = "kokoro-82m", "af_heart"
TEXT = ("The sun is shining today.", "Our train leaves very soon.", "Please close the old door.")
ROUNDS = {1: 5, 4: 3, 8: 2}
"""Callers to runs: eight callers on two cores speak for half a minute."""
BYTES_PER_SECOND = 2 * PCM_RATE


@dataclass(frozen=True)
class Heard:
    """What one caller received; times in seconds since all of them began.

    Attributes:
        first: When the first audio came.
        third: When audio of the third sentence came.
        audio: Length of all audio.
    """

    first: float
    third: float
    audio: float


def run(state: Path) -> None:
    """Prints the tables."""
    with running_suite(state, environment=ONE_THREAD, services="tts,stt") as suite:
        environment = {**os.environ, **ONE_THREAD}
        catalogue = str(ROOT / "models/starter.yaml")
        with worker(
            *("synthesis", catalogue, str(MODELS), MODEL, VOICE), environment=environment
        ) as alone:
            _synthesis(suite, alone)
        asyncio.run(hearing.formats(suite))
        asyncio.run(hearing.live(suite))
    _chunks(state.with_name("stamps"))


def _synthesis(suite: Suite, alone: Worker) -> None:
    rates, firsts, order = [], [], []
    alone.ask({"callers": 1, "sentences": TEXT})  # warms both up
    asyncio.run(_listen(suite, 1, 0.0))
    for callers, rounds in ROUNDS.items():
        bare, through = [], []
        own_first, first = [], []
        for _ in range(rounds):
            answer = alone.ask({"callers": callers, "sentences": TEXT})
            third_begins = sum(answer["sentences"][:2])
            began = time.perf_counter()
            heard = asyncio.run(_listen(suite, callers, third_begins))
            through.append((time.perf_counter() - began) / sum(each.audio for each in heard))
            bare.append(answer["seconds"] / answer["audio"])
            own_first.append(median(answer["first"]))
            first.append(median(each.first for each in heard))
            order.append((callers, max(e.first for e in heard), min(e.third for e in heard)))
        share = median(bare) / median(through)
        rates.append(
            (str(callers), spread(bare, "{:.2f}"), spread(through, "{:.2f}"), f"{share:.0%}")
        )
        ratio = median(first) / median(own_first)
        firsts.append(
            (str(callers), spread(own_first, "{:.2f}"), spread(first, "{:.2f}"), f"{ratio:.2f}")
        )
    table(
        f"{MODEL}: seconds of work per second of speech, three sentences each",
        ("callers", "engine alone in process", "through REST", "share"),
        rates,
    )
    table(
        "First audio: seconds to a caller's first byte (goal 1.15 times the engine's own"
        " first sentence)",
        ("callers", "engine alone in process", "through REST", "ratio"),
        firsts,
    )
    table(
        "Order: the last caller's first audio comes before anybody's third sentence",
        ("callers", "last first audio, s", "first third sentence, s"),
        [
            (str(callers), f"{last:.2f}", f"{third:.2f}")
            for callers, last, third in order
            if callers > 1
        ],
    )


async def _listen(suite: Suite, callers: int, third_begins: float) -> Sequence[Heard]:
    """All callers at once."""
    began = time.perf_counter()
    async with httpx.AsyncClient(
        base_url=suite.url, headers={"Authorization": f"Bearer {suite.key}"}, timeout=600
    ) as client:
        return await asyncio.gather(*(_one(client, began, third_begins) for _ in range(callers)))


async def _one(client: httpx.AsyncClient, began: float, third_begins: float) -> Heard:
    first = third = 0.0
    size = 0
    asked = {"model": MODEL, "voice": VOICE, "input": " ".join(TEXT), "response_format": "pcm"}
    async with client.stream("POST", "/v1/audio/speech", json=asked) as answer:
        if answer.is_error:
            raise RuntimeError((await answer.aread()).decode())
        async for piece in answer.aiter_raw():
            now = time.perf_counter() - began
            first = first or now
            size += len(piece)
            if not third and size > third_begins * BYTES_PER_SECOND:
                third = now
    return Heard(first, third, size / BYTES_PER_SECOND)


@contextmanager
def _stamps(port: int) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, str(HERE / "stamps.py"), str(port)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _chunks(state: Path) -> None:
    """The way of a chunk from its service to the client, with and without the gateway."""
    (port,) = free_ports(1)
    target = f"127.0.0.1:{port}"
    environment = {"ATRIUM_GATEWAY_TTS_TARGET": target, "ATRIUM_LOG_FORMAT": "json"}
    with (
        _stamps(port),
        running_suite(
            state, catalogue="models/fake.yaml", services="llm", environment=environment
        ) as suite,
    ):
        wait_until(lambda: _tts_is_ready(suite), what="the stamping service")
        direct: list[float] = []
        through: list[float] = []
        for _ in range(5):
            direct += asyncio.run(_direct(target))
            through += asyncio.run(_through(suite))
    rows = [
        (name, str(len(each)), f"{median(each):.2f}", f"{percentile(each, 0.99):.2f}")
        for name, each in (("gRPC client of the service", direct), ("REST client", through))
    ]
    added = median(through) - median(direct)
    late = percentile(through, 0.99) - percentile(direct, 0.99)
    table(
        "A chunk of audio from its service to the client, ms (goal: the gateway adds at most 2)",
        ("", "chunks", "median", "p99"),
        [*rows, ("added by the gateway", "", f"{added:.2f}", f"{late:.2f}")],
    )


def _tts_is_ready(suite: Suite) -> bool:
    health = httpx.get(f"{suite.url}/health").json()
    return bool(health["services"]["tts"]["status"] == "ready")


def _age(data: bytes) -> float:
    """Milliseconds since a chunk was stamped."""
    return (time.monotonic_ns() - int.from_bytes(data[:STAMP_BYTES], "little")) / 1e6


async def _direct(target: str) -> list[float]:
    async with grpc.aio.insecure_channel(target) as channel:
        stub = tts_pb2_grpc.SpeechSynthesisServiceStub(channel)
        request = tts_pb2.SynthesizeSpeechRequest(text="x", format=tts_pb2.AUDIO_FORMAT_PCM)
        return [
            _age(step.chunk.data)
            async for step in stub.SynthesizeSpeech(request)
            if step.WhichOneof("step") == "chunk"
        ]


async def _through(suite: Suite) -> list[float]:
    ages = []
    waiting = b""
    asked = {"model": "fake-speech", "input": "x", "voice": "alloy", "response_format": "pcm"}
    headers = {"Authorization": f"Bearer {suite.key}"}
    async with (
        httpx.AsyncClient(base_url=suite.url, headers=headers) as client,
        client.stream("POST", "/v1/audio/speech", json=asked) as answer,
    ):
        async for piece in answer.aiter_raw():
            waiting += piece
            while len(waiting) >= CHUNK_BYTES:
                ages.append(_age(waiting))
                waiting = waiting[CHUNK_BYTES:]
    if len(ages) != CHUNKS:
        raise RuntimeError(f"{len(ages)} of {CHUNKS} chunks came, status {answer.status_code}")
    return ages
