"""What the gateway costs: CPU per request and per token, added time to first token, memory.

Over the fake engine, with authentication, three limits, reservation and ledger on, beside a
bare FastAPI-to-grpc.aio relay to the same service: with quotas counted in process and SQLite,
and with Redis and PostgreSQL.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from atrium_gateway.settings import GatewaySettings
from atrium_gateway.testing.servers import postgres_server, redis_server
from tests.bench.load import LoadPlan
from tests.bench.report import HERE, ROUNDS, cpu_seconds, percentile, send, spread, table
from tests.kit.suite import Suite, free_ports, running_suite

REQUESTS = int(os.environ.get("ATRIUM_BENCH_REQUESTS", "50000"))
"""Requests of the memory table."""
_LEGS = 5
_CALLERS = 16


def _body(*, stream: bool, tokens: int) -> str:
    body: dict[str, object] = {
        "model": "fake-chat",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "What is the capital of France?"},
        ],
        "max_tokens": tokens,
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body)


@contextmanager
def _relay(suite: Suite) -> Iterator[tuple[str, psutil.Process]]:
    port = free_ports(1)[0]
    process = subprocess.Popen(
        [sys.executable, str(HERE / "relay.py"), str(port), suite.target("llm"), suite.credential()]
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                urlopen(f"{url}/openapi.json", timeout=5).close()
                break
            except URLError:
                time.sleep(0.1)
        yield url, psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def _limited_key(suite: Suite) -> str:
    """A key of a tenant with limits that are checked but never reached."""
    suite.atrium("tenant", "create", "bench")
    for unit, window in (("requests", "minute"), ("requests", "hour"), ("tokens", "month")):
        suite.atrium(
            *("tenant", "limit", "bench", "--capability", "chat"),
            *("--unit", unit, "--window", window, "--amount", "1000000000"),
        )
    return json.loads(suite.atrium("key", "create", "bench", "--json"))["key"]


def run(state: Path) -> None:
    """Prints the tables: all for the quick start's stores, throughput and memory for both."""
    with _running(state / "alone", {}) as (gateway, relay, headers):
        _throughput(gateway, relay, headers, stores="in process, SQLite", goal="50%")
        _streaming(gateway, relay, headers)
        _first_token(gateway, relay, headers)
        _memory(gateway, headers, stores="in process, SQLite")
    if "quota_redis_url" not in GatewaySettings.model_fields:
        return
    with postgres_server(fsync=True) as postgres, redis_server() as redis:
        environment = {
            "ATRIUM_GATEWAY_DATABASE_URL": postgres.new_database("bench"),
            "ATRIUM_GATEWAY_QUOTA_REDIS_URL": redis.url,
        }
        with _running(state / "together", environment) as (gateway, relay, headers):
            _throughput(gateway, relay, headers, stores="Redis, PostgreSQL", goal="40%")
            _memory(gateway, headers, stores="Redis, PostgreSQL")


@contextmanager
def _running(
    state: Path, environment: Mapping[str, str]
) -> Iterator[tuple["Side", "Side", dict[str, str]]]:
    """A warm gateway and a warm relay, and the headers of a tenant with limits."""
    with (
        running_suite(
            state,
            catalogue="models/fake.yaml",
            services="llm",
            environment={"ATRIUM_LOG_FORMAT": "json", **environment},
        ) as suite,
        _relay(suite) as (relay_url, relay_process),
    ):
        headers = {"Authorization": f"Bearer {_limited_key(suite)}"}
        gateway = (suite.url, suite.process("gateway"))
        relay = (relay_url, relay_process)
        for url, _ in (gateway, relay):
            send(LoadPlan(url + "/v1/chat/completions", _body(stream=False, tokens=8), headers))
        yield gateway, relay, headers


Side = tuple[str, psutil.Process]


def _throughput(
    gateway: Side, relay: Side, headers: dict[str, str], *, stores: str, goal: str
) -> None:
    rates: dict[str, list[float]] = {"gateway": [], "relay": []}
    walls: dict[str, list[float]] = {"gateway": [], "relay": []}
    for _ in range(ROUNDS):
        for name, (url, process) in (("gateway", gateway), ("relay", relay)):
            before = cpu_seconds(process)
            result = send(
                LoadPlan(
                    url + "/v1/chat/completions",
                    _body(stream=False, tokens=8),
                    headers,
                    callers=16,
                    seconds=4.0,
                )
            )
            rates[name].append(result.requests / (cpu_seconds(process) - before))
            walls[name].append(result.requests / result.wall)
    ratio = median(rates["gateway"]) / median(rates["relay"])
    table(
        f"Non-streaming chat over the fake engine, 16 callers ({stores})",
        ("", "requests per CPU-second of the process", "requests/s"),
        [
            ("bare FastAPI-grpc.aio relay", spread(rates["relay"]), spread(walls["relay"])),
            ("Atrium gateway", spread(rates["gateway"]), spread(walls["gateway"])),
            (f"share (goal {goal})", f"{ratio:.0%}", ""),
        ],
    )


def _streaming(gateway: Side, relay: Side, headers: dict[str, str]) -> None:
    tokens = 128
    rates: dict[str, list[float]] = {"gateway": [], "relay": []}
    for _ in range(ROUNDS):
        for name, (url, process) in (("gateway", gateway), ("relay", relay)):
            before = cpu_seconds(process)
            result = send(
                LoadPlan(
                    url + "/v1/chat/completions",
                    _body(stream=True, tokens=tokens),
                    headers,
                    callers=8,
                    seconds=4.0,
                    stream=True,
                )
            )
            rates[name].append(result.requests * tokens / (cpu_seconds(process) - before))
    ratio = median(rates["gateway"]) / median(rates["relay"])
    table(
        f"Streamed chat over the fake engine, 8 callers, {tokens} tokens each",
        ("", "tokens per CPU-second of the process"),
        [
            ("bare FastAPI-grpc.aio relay", spread(rates["relay"])),
            ("Atrium gateway", spread(rates["gateway"])),
            ("share", f"{ratio:.0%}"),
        ],
    )


def _first_token(gateway: Side, relay: Side, headers: dict[str, str]) -> None:
    times: dict[str, list[float]] = {"gateway": [], "relay": []}
    for _ in range(ROUNDS):
        for name, (url, _) in (("gateway", gateway), ("relay", relay)):
            result = send(
                LoadPlan(
                    url + "/v1/chat/completions",
                    _body(stream=True, tokens=4),
                    headers,
                    callers=1,
                    requests=100,
                    stream=True,
                )
            )
            times[name] += [1000 * each for each in result.first_event]
    rows = [
        (
            label,
            f"{median(times[name]):.2f}",
            f"{percentile(times[name], 0.99):.2f}",
        )
        for label, name in (
            ("bare FastAPI-grpc.aio relay", "relay"),
            ("Atrium gateway", "gateway"),
        )
    ]
    added = median(times["gateway"]) - median(times["relay"])
    table(
        "Time to first token over the fake engine, 1 caller",
        ("", "median ms", "p99 ms"),
        [*rows, ("added", f"{added:.2f}", "")],
    )


def _memory(gateway: Side, headers: dict[str, str], *, stores: str) -> None:
    """Resident memory while requests go through: a leak would show from leg to leg."""
    url, process = gateway
    each = REQUESTS // _LEGS // _CALLERS
    rows = [("before", f"{process.memory_info().rss / 1e6:.0f}")]
    for leg in range(1, _LEGS + 1):
        send(
            LoadPlan(
                url + "/v1/chat/completions",
                _body(stream=False, tokens=8),
                headers,
                callers=_CALLERS,
                requests=each,
            )
        )
        used = process.memory_info().rss / 1e6
        rows.append((f"after {leg * each * _CALLERS:,} requests", f"{used:.0f}"))
    table(f"Memory of the gateway's process ({stores}; goal under 200 MB)", ("", "MB"), rows)
