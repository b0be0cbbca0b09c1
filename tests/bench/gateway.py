"""What the gateway costs: CPU per request and per token, added time to first token, memory.

Over the fake engine, with authentication, three limits, reservation and ledger on, without and
with an `Idempotency-Key` on every request, beside a bare FastAPI-to-grpc.aio relay to the same
service: with quotas counted in process and SQLite, and with Redis and PostgreSQL.
"""

import os
from pathlib import Path
from statistics import median

import psutil

from tests.bench import memory
from tests.bench.load import LoadPlan
from tests.bench.report import ROUNDS, cpu_seconds, percentile, send, spread, table
from tests.bench.sides import CHAT, Bench, alone, chat, together

REQUESTS = int(os.environ.get("ATRIUM_BENCH_REQUESTS", "20000"))
"""Requests of the memory table; `python -m tests.bench.memory` looks for longer."""
SECONDS = float(os.environ.get("ATRIUM_BENCH_SECONDS", "4"))
"""Length of one run."""
_LEGS = 5
_CALLERS = 16


def run(state: Path) -> None:
    """Prints the tables."""
    with alone(state / "alone") as bench:
        throughput(bench, goal="50%")
        _streaming(bench)
        _first_token(bench)
        memory.measure(bench, requests=REQUESTS, legs=_LEGS, keyed=True)
    with together(state / "together") as bench:
        throughput(bench, goal="40%")
        memory.measure(bench, requests=REQUESTS, legs=_LEGS, keyed=True)


def throughput(bench: Bench, *, goal: str) -> None:
    """Requests per CPU-second of the process, and what the stores' own processes use."""
    sides = {
        "bare FastAPI-grpc.aio relay": (bench.relay, False),
        "Atrium gateway": (bench.gateway, False),
        "Atrium gateway, Idempotency-Key": (bench.gateway, True),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    walls: dict[str, list[float]] = {name: [] for name in sides}
    others: dict[str, dict[str, list[float]]] = {name: {} for name in sides}
    for _ in range(ROUNDS):
        for name, (side, keyed) in sides.items():
            plan = LoadPlan(
                side.url + CHAT,
                chat(stream=False, tokens=8),
                bench.headers,
                callers=_CALLERS,
                seconds=SECONDS,
                keyed=keyed,
            )
            before = cpu_seconds(side.process)
            stores = {each: _family_seconds(process) for each, process in bench.servers.items()}
            result = send(plan)
            rates[name].append(result.requests / (cpu_seconds(side.process) - before))
            walls[name].append(result.requests / result.wall)
            for each, process in bench.servers.items():
                used = 1000 * (_family_seconds(process) - stores[each]) / result.requests
                others[name].setdefault(each, []).append(used)
    relay = median(next(iter(rates.values())))
    rows = [
        (
            name,
            spread(rates[name]),
            f"{median(rates[name]) / relay:.0%}",
            spread(walls[name]),
            *(f"{median(used):.2f}" for used in others[name].values()),
        )
        for name in sides
    ]
    table(
        f"Non-streaming chat over the fake engine, {_CALLERS} callers"
        f" ({bench.stores}; goal {goal} with idempotency on)",
        (
            *("", "requests per CPU-second of the process", "share", "requests/s"),
            *(f"CPU ms a request, {each}" for each in bench.servers),
        ),
        rows,
    )


def _family_seconds(process: psutil.Process) -> float:
    """CPU time of a server with its children, also of those that have ended."""
    times = process.cpu_times()
    ended = float(times.children_user + times.children_system)
    return cpu_seconds(process) + ended + sum(map(cpu_seconds, process.children(recursive=True)))


def _streaming(bench: Bench) -> None:
    tokens = 128
    sides = {"bare FastAPI-grpc.aio relay": bench.relay, "Atrium gateway": bench.gateway}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            before = cpu_seconds(side.process)
            result = send(
                LoadPlan(
                    side.url + CHAT,
                    chat(stream=True, tokens=tokens),
                    bench.headers,
                    callers=8,
                    seconds=SECONDS,
                    stream=True,
                )
            )
            rates[name].append(result.requests * tokens / (cpu_seconds(side.process) - before))
    bare, gateway = (median(each) for each in rates.values())
    table(
        f"Streamed chat over the fake engine, 8 callers, {tokens} tokens each",
        ("", "tokens per CPU-second of the process"),
        [
            *((name, spread(each)) for name, each in rates.items()),
            ("share", f"{gateway / bare:.0%}"),
        ],
    )


def _first_token(bench: Bench) -> None:
    sides = {"bare FastAPI-grpc.aio relay": bench.relay, "Atrium gateway": bench.gateway}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            result = send(
                LoadPlan(
                    side.url + CHAT,
                    chat(stream=True, tokens=4),
                    bench.headers,
                    callers=1,
                    requests=100,
                    stream=True,
                )
            )
            times[name] += [1000 * each for each in result.first_event]
    bare, gateway = (median(each) for each in times.values())
    table(
        "Time to first token over the fake engine, 1 caller",
        ("", "median ms", "p99 ms"),
        [
            *(
                (name, f"{median(each):.2f}", f"{percentile(each, 0.99):.2f}")
                for name, each in times.items()
            ),
            ("added", f"{gateway - bare:.2f}", ""),
        ],
    )
