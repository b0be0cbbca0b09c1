"""What step batching does for pictures: a mixed load, a single request, the way through REST.

diffusers' own pipeline, one request after the other, takes turns with the service's engine
in process and with the whole suite, on one thread each.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from tests.bench.models import ONE_THREAD
from tests.bench.report import Worker, cpu_seconds, percentile, spread, table, worker
from tests.kit.suite import MODELS, ROOT, Suite, running_suite

MODEL = "sdxl-shapes-128"
ROUNDS = 3
QUIET = {
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
"""The libraries' remarks stay out of the tables."""
REQUESTS = 24
MEAN_GAP_SECONDS = 0.15
"""Between two arrivals: shorter than a picture takes alone, so that a queue builds up."""
DRAFT_STEPS = 8
"""Requests of so many steps, or fewer, are drafts."""
PROMPTS = ("a red circle", "three green stars", "two blue squares", "a yellow triangle")

Request = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a load took.

    Attributes:
        seconds: From the first arrival to the last picture.
        cpu: Seconds of the CPU that the drawing process spent.
        latencies: Of each request, in the order of the load, in seconds.
        calls: Of the UNet; 0 where they can't be counted.
        unet: Seconds in these calls.
    """

    seconds: float
    cpu: float
    latencies: Sequence[float]
    calls: int = 0
    unet: float = 0.0


Side = Callable[[Sequence[Request]], Outcome]


def run(state: Path) -> None:
    """Prints the tables."""
    environment = {**os.environ, **ONE_THREAD, **QUIET}
    arguments = (str(ROOT / "models/starter.yaml"), str(MODELS), MODEL)
    with (
        worker("pipeline", *arguments, environment=environment, script="drawing.py") as pipeline,
        worker("batched", *arguments, environment=environment, script="drawing.py") as batched,
        running_suite(state, environment=ONE_THREAD, services="text2image") as suite,
    ):
        sides: dict[str, Side] = {
            "diffusers, one by one": _of(pipeline),
            "engine in process": _of(batched),
            "through REST": lambda load: asyncio.run(_through(suite, load)),
        }
        for side in sides.values():  # warms them up
            side(_alone(steps=4, count=1))
        _mixed(sides)
        _single(sides)
        _draft(sides)


def _of(side: Worker) -> Side:
    return lambda load: Outcome(**side.ask({"requests": list(load)}))


def _request(at: float, steps: int, guidance: float, seed: int) -> Request:
    prompt = PROMPTS[seed % len(PROMPTS)]
    return {"at": at, "prompt": prompt, "steps": steps, "guidance": guidance, "seed": seed}


def _alone(*, steps: int, count: int = 1) -> list[Request]:
    return [_request(0.0, steps, 3.0, seed) for seed in range(count)]


def _load(seed: int) -> list[Request]:
    """Requests of many kinds that arrive at random, the same ones for the same `seed`."""
    dice = random.Random(seed)  # noqa: S311  a load, not a secret
    at, load = 0.0, []
    for number in range(REQUESTS):
        steps = dice.choice((4, 4, 8, 12, 20, 30, 50))
        load.append(_request(at, steps, dice.choice((1.0, 3.0, 3.0)), number))
        at += dice.expovariate(1 / MEAN_GAP_SECONDS)
    return load


def _rounds(
    sides: dict[str, Side], load: Callable[[int], Sequence[Request]], rounds: int
) -> dict[str, list[Outcome]]:
    """The sides take turns, so that a busy moment of the machine hits all of them."""
    found: dict[str, list[Outcome]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in sides.items():
            found[name].append(side(load(number)))
    return found


def _mixed(sides: dict[str, Side]) -> None:
    found = _rounds(sides, _load, ROUNDS)
    rows = []
    for name, outcomes in found.items():
        drafts = [
            latency
            for number, outcome in enumerate(outcomes)
            for request, latency in zip(_load(number), outcome.latencies, strict=True)
            if request["steps"] <= DRAFT_STEPS
        ]
        every = [latency for outcome in outcomes for latency in outcome.latencies]
        rate = [REQUESTS / outcome.seconds for outcome in outcomes]
        cpu = median(outcome.cpu for outcome in outcomes) / REQUESTS
        calls = sum(outcome.calls for outcome in outcomes)
        rows.append(
            (
                name,
                spread(rate, "{:.2f}"),
                *(f"{percentile(every, share):.2f}" for share in (0.5, 0.95)),
                *(f"{percentile(drafts, share):.2f}" for share in (0.5, 0.95)),
                f"{cpu:.2f}",
                f"{calls:,}" if calls else "",
            )
        )
    table(
        f"{MODEL}: {REQUESTS} requests of 4 to 50 steps, guidance 1 or 3, one every"
        f" {MEAN_GAP_SECONDS:g} s, {ROUNDS} rounds, one thread",
        (
            "",
            "pictures/s",
            "p50 s",
            "p95 s",
            "drafts p50",
            "drafts p95",
            "CPU s each",
            "UNet calls",
        ),
        rows,
    )


def _single(sides: dict[str, Side]) -> None:
    """One request at a time: what the loop, the events and the doors cost per step."""
    steps = 50
    found = _rounds(sides, lambda _: _alone(steps=steps), 4 * ROUNDS)
    pipeline = next(iter(found.values()))
    step = median(outcome.seconds for outcome in pipeline) / steps
    least = median(outcome.seconds - outcome.unet for outcome in pipeline) / steps
    rows = []
    for name, outcomes in found.items():
        wall = [1000 * outcome.seconds / steps for outcome in outcomes]
        beside = median(outcome.seconds - outcome.unet for outcome in outcomes) / steps
        known = outcomes[0].calls > 0
        rows.append(
            (
                name,
                spread(wall, "{:.2f}"),
                f"{1000 * beside:.2f}" if known else "",
                f"{(beside - least) / step:+.1%}" if known else "",
            )
        )
    table(
        f"A single request of {steps} steps with guidance, words and decoding included (goal:"
        " beside the UNet, the engine takes at most 3% of a step more)",
        ("", "ms per step", "of it beside the UNet", "more than the pipeline"),
        rows,
    )


def _draft(sides: dict[str, Side]) -> None:
    """A draft of 4 steps: what gateway, service and PNG add to it."""
    found = _rounds(sides, lambda _: _alone(steps=4), 10 * ROUNDS)
    times = {
        name: [1000 * outcome.latencies[0] for outcome in outcomes]
        for name, outcomes in found.items()
    }
    _, engine, through = times
    added = median(times[through]) - median(times[engine])
    rows = [
        (
            name,
            f"{median(each):.1f}",
            f"{percentile(each, 0.95):.1f}",
            f"{1000 * median(outcome.cpu for outcome in found[name]):.1f}",
        )
        for name, each in times.items()
    ]
    table(
        "A draft of 4 steps, one caller: ms to the whole picture",
        ("", "median ms", "p95 ms", "CPU ms of the drawing process"),
        [*rows, ("added by gateway, service and PNG", f"{added:.1f}", "", "")],
    )


async def _through(suite: Suite, load: Sequence[Request]) -> Outcome:
    headers = {"Authorization": f"Bearer {suite.key}", "Accept": "image/png"}
    limits = httpx.Limits(max_connections=None)
    drawer = suite.process("text2image")
    async with httpx.AsyncClient(
        base_url=suite.url, headers=headers, timeout=300, limits=limits
    ) as client:
        await client.get("/health/live")
        cpu = cpu_seconds(drawer)
        began = time.perf_counter()

        async def one(request: Request) -> float:
            await asyncio.sleep(request["at"] - (time.perf_counter() - began))
            asked = {
                "model": MODEL,
                "prompt": request["prompt"],
                "steps": request["steps"],
                "guidance_scale": request["guidance"],
                "seed": request["seed"],
            }
            answer = await client.post("/api/text-to-image", json=asked)
            if answer.is_error:
                raise RuntimeError(answer.text)
            return time.perf_counter() - began - float(request["at"])

        latencies = await asyncio.gather(*map(one, load))
        seconds = time.perf_counter() - began
        return Outcome(seconds, cpu_seconds(drawer) - cpu, latencies)
