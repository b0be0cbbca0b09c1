"""What the suite adds to real models: tokens per second, transcription time, memory,
and whether health answers while everything is busy.

Each figure stands beside the engine alone in a process of its own, on the same number
of threads, taking turns with the suite.
"""

import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from scripts.launcher.options import MODEL_SERVICES
from tests.bench.load import LoadPlan
from tests.bench.report import ROUNDS, Worker, percentile, send, spread, table, worker
from tests.kit.speech import spoken
from tests.kit.suite import MODELS, ROOT, Suite, running_suite

MODEL = "smollm2-135m-instruct"
PROMPT = "Write a short story about a lighthouse keeper and his dog."
CALLERS = (1, 4, 8, 16)
TOKENS = 48
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def run(state: Path) -> None:
    """Prints the four tables."""
    environment = {**os.environ, **ONE_THREAD}
    with running_suite(state, environment=ONE_THREAD) as suite:
        _memory(suite, "Memory after start")
        with worker(
            *("text", str(ROOT / "models/starter.yaml"), str(MODELS), MODEL),
            environment=environment,
        ) as alone:
            _text(suite, alone)
        # The same threads and the same way of waiting for work as the suite's.
        with worker("speech", _whisper_folder(), "2", environment=environment) as alone:
            _speech(suite, alone)
        asyncio.run(_health(suite))
        _memory(suite, "Memory after the load above")


def _whisper_folder() -> str:
    from atrium_common.catalogue import Catalogue
    from atrium_common.weights import WeightStore

    catalogue = Catalogue.load(ROOT / "models/starter.yaml")
    entry = next(entry for entry in catalogue.for_service("stt") if entry.id == "whisper-base")
    folder = WeightStore(MODELS).locate(entry)
    if folder is None:
        raise RuntimeError("whisper-base is not there: run `make run` once")
    return str(folder)


def _text(suite: Suite, alone: Worker) -> None:
    body = json.dumps(
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": TOKENS,
            "min_tokens": TOKENS,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )
    rows = []
    for callers in CALLERS:
        through, bare = [], []
        for _ in range(ROUNDS + 1):
            answer = alone.ask({"callers": callers, "max_tokens": TOKENS, "prompt": PROMPT})
            bare.append(answer["tokens"] / answer["seconds"])
            result = send(
                LoadPlan(
                    suite.url + "/v1/chat/completions",
                    body,
                    {"Authorization": f"Bearer {suite.key}"},
                    callers=callers,
                    requests=1,
                    stream=True,
                )
            )
            through.append(result.completion_tokens / result.wall)
        share = median(through[1:]) / median(bare[1:])  # the first round warms both up
        rows.append(
            (
                str(callers),
                spread(bare[1:], "{:.1f}"),
                spread(through[1:], "{:.1f}"),
                f"{share:.0%}",
            )
        )
    table(
        f"{MODEL}: tokens/s, engine on one thread in both (goal 95%)",
        ("callers", "engine alone in process", "through REST, streamed", "share"),
        rows,
    )


def _speech(suite: Suite, alone: Worker) -> None:
    rows = []
    for label, path in (("one sentence", spoken(1)), ("ten sentences", spoken(10))):
        through, bare = [], []
        for _ in range(ROUNDS + 1):
            bare.append(alone.ask({"path": str(path)})["seconds"])
            through.append(_transcribe(suite, path))
        ratio = median(through[1:]) / median(bare[1:]) - 1
        rows.append(
            (label, spread(bare[1:], "{:.2f}"), spread(through[1:], "{:.2f}"), f"{ratio:+.1%}")
        )
    table(
        "whisper-base: seconds per transcription (goal at most +5%)",
        ("audio", "faster-whisper alone", "through REST", "difference"),
        rows,
    )


def _transcribe(suite: Suite, path: Path) -> float:
    start = time.perf_counter()
    response = httpx.post(
        suite.url + "/v1/audio/transcriptions",
        headers={"Authorization": f"Bearer {suite.key}"},
        data={"model": "whisper-base"},
        files={"file": (path.name, path.read_bytes())},
        timeout=300,
    )
    response.raise_for_status()
    return time.perf_counter() - start


async def _health(suite: Suite) -> None:
    times: dict[str, list[float]] = {"gateway /health/live": [], "llm": [], "stt": []}
    busy = asyncio.create_task(_keep_busy(suite))
    await asyncio.sleep(1.0)
    async with (
        httpx.AsyncClient() as client,
        grpc.aio.insecure_channel(suite.target("llm")) as llm,
        grpc.aio.insecure_channel(suite.target("stt")) as stt,
    ):
        stubs = {"llm": health_pb2_grpc.HealthStub(llm), "stt": health_pb2_grpc.HealthStub(stt)}
        while not busy.done():
            start = time.perf_counter()
            await client.get(suite.url + "/health/live")
            times["gateway /health/live"].append(1000 * (time.perf_counter() - start))
            for name, stub in stubs.items():
                start = time.perf_counter()
                await stub.Check(health_pb2.HealthCheckRequest())
                times[name].append(1000 * (time.perf_counter() - start))
            await asyncio.sleep(0.02)
    await busy
    table(
        "Health while llm and stt are busy, both cores in use (goal p99 50 ms)",
        ("", "checks", "median ms", "p99 ms"),
        [
            (name, str(len(each)), f"{median(each):.1f}", f"{percentile(each, 0.99):.1f}")
            for name, each in times.items()
        ],
    )


async def _keep_busy(suite: Suite) -> None:
    path = spoken(10)
    body = json.dumps(
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": 64,
            "stream": True,
        }
    )
    plan = LoadPlan(
        suite.url + "/v1/chat/completions",
        body,
        {"Authorization": f"Bearer {suite.key}"},
        callers=8,
        requests=4,
        stream=True,
    )
    await asyncio.gather(
        asyncio.to_thread(send, plan),
        *(asyncio.to_thread(_transcribe, suite, path) for _ in range(3)),
    )


def _memory(suite: Suite, title: str) -> None:
    rows: list[Sequence[str]] = []
    for name in ("gateway", *MODEL_SERVICES):
        info = suite.process(name).memory_full_info()
        rows.append((name, f"{info.rss / 2**20:,.0f}", f"{info.uss / 2**20:,.0f}"))
    table(title, ("process", "resident MiB", "its own MiB"), rows)
