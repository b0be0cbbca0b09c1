"""What the gateway's benchmarks take turns between: a gateway and a bare relay, both warm.

`gateway.py` and `memory.py` enter `alone` and `together`.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from atrium_gateway.testing.servers import postgres_server, redis_server
from tests.bench.load import LoadPlan
from tests.bench.report import HERE, send
from tests.kit.suite import Suite, free_ports, running_suite

CHAT = "/v1/chat/completions"
_PLENTY = "1000000000"
_SETTINGS = {
    "ATRIUM_LOG_FORMAT": "json",
    "ATRIUM_GATEWAY_IDEMPOTENCY_TENANT_KEYS": _PLENTY,
    "ATRIUM_GATEWAY_IDEMPOTENCY_TENANT_BYTES": str(1 << 40),
    # A busy machine is measured, too: a late answer of Redis is no outage here.
    "ATRIUM_GATEWAY_QUOTA_TIMEOUT_SECONDS": "5",
}


@dataclass(frozen=True, kw_only=True)
class Side:
    """A server that is measured."""

    url: str
    process: psutil.Process


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What runs.

    Attributes:
        stores: What counts and what keeps, for titles.
        gateway: Atrium's gateway.
        relay: The baseline.
        headers: Of a tenant with limits.
        servers: Processes of the stores, whose CPU time is told apart.
    """

    stores: str
    gateway: Side
    relay: Side
    headers: dict[str, str]
    servers: Mapping[str, psutil.Process]


def chat(*, stream: bool, tokens: int) -> str:
    """Body of a chat request."""
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
def alone(state: Path) -> Iterator[Bench]:
    """A gateway as the quick start has it."""
    with _running(state, {}, stores="in process, SQLite", servers={}) as bench:
        yield bench


@contextmanager
def together(state: Path) -> Iterator[Bench]:
    """A gateway as one of several over one Redis and one PostgreSQL."""
    with postgres_server(fsync=True) as postgres, redis_server() as redis:
        environment = {
            "ATRIUM_GATEWAY_DATABASE_URL": postgres.new_database("bench"),
            "ATRIUM_GATEWAY_QUOTA_REDIS_URL": redis.url,
        }
        servers = {"Redis": _child("redis-server"), "PostgreSQL": _child("postgres")}
        with _running(state, environment, stores="Redis, PostgreSQL", servers=servers) as bench:
            yield bench


def _child(name: str) -> psutil.Process:
    """A server that this process has started."""
    return next(each for each in psutil.Process().children(recursive=True) if each.name() == name)


@contextmanager
def _running(
    state: Path,
    environment: Mapping[str, str],
    *,
    stores: str,
    servers: Mapping[str, psutil.Process],
) -> Iterator[Bench]:
    with (
        running_suite(
            state,
            catalogue="models/fake.yaml",
            services="llm",
            environment={**_SETTINGS, **environment},
        ) as suite,
        _relay(suite) as relay,
    ):
        bench = Bench(
            stores=stores,
            gateway=Side(url=suite.url, process=suite.process("gateway")),
            relay=relay,
            headers={"Authorization": f"Bearer {_limited_key(suite)}"},
            servers=servers,
        )
        for side in (bench.gateway, bench.relay):
            send(LoadPlan(side.url + CHAT, chat(stream=False, tokens=8), bench.headers))
        yield bench


@contextmanager
def _relay(suite: Suite) -> Iterator[Side]:
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
        yield Side(url=url, process=psutil.Process(process.pid))
    finally:
        process.kill()
        process.wait()


def _limited_key(suite: Suite) -> str:
    """A key of a tenant with limits that are checked but never reached."""
    suite.atrium("tenant", "create", "bench")
    for unit, window in (("requests", "minute"), ("requests", "hour"), ("tokens", "month")):
        suite.atrium(
            *("tenant", "limit", "bench", "--capability", "chat"),
            *("--unit", unit, "--window", window, "--amount", _PLENTY),
        )
    made: str = json.loads(suite.atrium("key", "create", "bench", "--json"))["key"]
    return made
