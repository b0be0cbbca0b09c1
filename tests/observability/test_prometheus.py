"""A real Prometheus over real processes: every target answers, every panel has something to draw.

The committed configuration and rules, at local ports and shorter intervals; the cards are those
of a stand-in for NVML.
"""

import asyncio
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass

import grpc.aio
import httpx
import pytest

from tests.kit.compose import ROOT
from tests.kit.dashboards import expressions
from tests.kit.direct import DIRECT, bearer
from tests.kit.processes import Programs, running_programs
from tests.kit.prometheus import Prometheus, running_prometheus
from tests.kit.tenancy import make_tenant

SERVICES = ("llm", "text2image")
WAIT_SECONDS = 20.0
WINDOW = "20s"
EMPTY = {
    ("atrium-service", "Rows per step"): "engines that batch have models",
}
"""Panels that need what is not here."""
CHAT = {
    "model": "fake-chat",
    "stream": True,
    "max_tokens": 8,
    "messages": [{"role": "user", "content": "hello"}],
}
PICTURE = {"model": "fake-pictures", "prompt": "a harbour", "steps": 2, "width": 64, "height": 64}


@dataclass(frozen=True)
class Watched:
    """Programs and who asks them."""

    programs: Programs
    prometheus: Prometheus


def send(http: httpx.Client, turn: int) -> None:
    """What a day brings: answers, a caller that leaves, a model that is not there, a refusal."""
    for _ in range(2):
        http.post("/v1/chat/completions", json=CHAT).raise_for_status()
    slow = {**CHAT, "model": "fake-slow", "max_tokens": 3000}
    with http.stream("POST", "/v1/chat/completions", json=slow) as reply:
        next(reply.iter_bytes())
    picture = {"idempotency-key": f"picture-{turn}"}
    http.post("/api/text-to-image", json=PICTURE, headers=picture).raise_for_status()
    assert http.post("/v1/chat/completions", json={**CHAT, "model": "none"}).status_code == 404


async def call_directly(target: str, key: str) -> None:
    """A chat of a program that goes past the gateway."""
    async with grpc.aio.insecure_channel(target) as channel:
        await DIRECT["streamed text"].run(channel, bearer(key, "direct"))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    (folder / "nvml").mkdir()
    shutil.copy(ROOT / "tests/kit/pynvml_stand_in.py", folder / "nvml/pynvml.py")
    environment = {"PYTHONPATH": str(folder / "nvml")}
    with (
        running_programs(folder, SERVICES, environment=environment, started=False) as programs,
        running_prometheus(folder, programs.metrics) as prometheus,
    ):
        programs.start()
        key = make_tenant(programs.environment, "watched", [("requests", "day", 11)])
        with httpx.Client(
            base_url=programs.gateway.url, headers={"authorization": f"Bearer {key}"}, timeout=30
        ) as http:
            for turn in range(2):
                send(http, turn)
                asyncio.run(call_directly(programs.targets["llm"], key))
                prometheus.scraped()
            http.post("/v1/chat/completions", json=CHAT).raise_for_status()
            assert http.post("/v1/chat/completions", json=CHAT).status_code == 429
            prometheus.scraped()
            yield Watched(programs, prometheus)


def test_every_process_is_up(watched: Watched) -> None:
    assert watched.prometheus.targets() == dict.fromkeys(["gateway", *SERVICES], "up")
    found = watched.prometheus.query("atrium_upstream_ready == 1")
    assert {each["metric"]["service"] for each in found} == set(SERVICES)


def test_every_query_of_every_dashboard_has_data(watched: Watched) -> None:
    missing = {(each.dashboard, each.panel, each.expression) for each in expressions(window=WINDOW)}
    empty = {each for each in missing if each[:2] in EMPTY}
    missing -= empty
    deadline = time.monotonic() + WAIT_SECONDS
    while missing and time.monotonic() < deadline:
        missing = {each for each in missing if not watched.prometheus.query(each[2])}
        time.sleep(0.2)
    assert not missing
    assert {each[:2] for each in empty} == set(EMPTY)


def test_rules_are_evaluated_and_the_budget_is_told(watched: Watched) -> None:
    groups = watched.prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
    assert firing == {"AtriumBudgetNearlyUsed", "AtriumBudgetUsedUp"}
    told = watched.prometheus.query('ALERTS{alertname="AtriumBudgetUsedUp"}')
    assert [each["metric"]["unit"] for each in told] == ["requests"]
