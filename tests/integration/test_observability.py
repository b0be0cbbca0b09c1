"""What the real processes tell: every metric of docs/metrics.md, and one trace for each request.

A gateway and two services run as processes of their own and send their spans to a collector
of the test.
"""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from atrium_common.telemetry.gpus import Gpus
from atrium_common.telemetry.setup import tracing
from atrium_common.telemetry.spans import find_tracer
from tests.kit.otlp import Collector, Received, collector
from tests.kit.processes import Programs, running_programs
from tests.kit.suite import ROOT, free_ports
from tests.kit.tenancy import make_tenant

TABLE = re.compile(r"^\| `([a-z_]+)` \| (\w+) \|.*?\| (all|gateway|service) \|", re.MULTILINE)
SHOWN = re.compile(r"^# TYPE (\w+) (\w+)$", re.MULTILINE)
SERVER, CLIENT = 2, 3
BROWSER = "b7ad6b7169203331"
SECRET = "the-secret-of-the-prompt"
TENANT = "observed-tenant"
CHAT = {
    "model": "fake-chat",
    "stream": True,
    "max_tokens": 8,
    "messages": [{"role": "user", "content": SECRET}],
}
PICTURE = {"model": "fake-slow-pictures", "prompt": SECRET, "steps": 2, "width": 64, "height": 64}
WAIT_SECONDS = 20.0


@dataclass(frozen=True)
class Observed:
    """The running programs, who hears of them, and a tenant's client."""

    programs: Programs
    spans: Collector
    http: httpx.Client

    def trace(self, trace: str, *names: str) -> dict[str, Received]:
        """The spans of a trace by their names, once all of `names` are among them."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            found = {span.name: span for span in self.spans.of_trace(trace)}
            if found.keys() >= set(names):
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{set(names) - found.keys()} missing of {sorted(found)}")
            time.sleep(0.05)


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    with collector() as spans:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": spans.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "ATRIUM_GATEWAY_FETCH_HOSTS": '["example.com"]',
        }
        folder = tmp_path_factory.mktemp("observed")
        names = ("llm", "text2image")
        with running_programs(folder, names, environment=environment) as programs:
            key = make_tenant(programs.environment, TENANT, [("requests", "day", 10)])
            with httpx.Client(
                base_url=programs.gateway.url,
                headers={"authorization": f"Bearer {key}"},
                timeout=30,
            ) as http:
                yield Observed(programs, spans, http)


def test_a_streamed_chat_is_one_trace_with_every_hop(observed: Observed) -> None:
    trace = "1" * 32
    headers = {"traceparent": f"00-{trace}-{BROWSER}-01"}
    reply = observed.http.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert reply.status_code == 200, reply.text
    served = "atrium.llm.v1.TextGenerationService/StreamGenerateText"
    request = "POST /v1/chat/completions"
    hops = observed.trace(
        trace, request, "admission", "chat fake-chat", served, "queue", "inference"
    )
    assert reply.headers["traceparent"] == f"00-{trace}-{hops[request].id}-01"
    assert {name: (hops[name].service, hops[name].parent) for name in hops} == {
        request: ("atrium-gateway", BROWSER),
        "admission": ("atrium-gateway", hops[request].id),
        "chat fake-chat": ("atrium-gateway", hops[request].id),
        served: ("atrium-llm", hops["chat fake-chat"].id),
        "queue": ("atrium-llm", hops[served].id),
        "inference": ("atrium-llm", hops[served].id),
    }
    assert (hops[request].kind, hops["chat fake-chat"].kind) == (SERVER, CLIENT)
    work = hops["chat fake-chat"].attributes
    assert work["gen_ai.operation.name"] == "chat"
    assert work["gen_ai.request.model"] == work["gen_ai.response.model"] == "fake-chat"
    assert work["gen_ai.usage.output_tokens"] == 8
    assert hops[served].attributes["gen_ai.usage.output_tokens"] == 8
    request_id = reply.headers["x-request-id"]
    assert hops[request].attributes["atrium.request_id"] == request_id
    assert hops[served].attributes["atrium.request_id"] == request_id
    assert hops[request].seconds >= hops["chat fake-chat"].seconds >= hops["inference"].seconds


def test_a_picture_is_one_trace_with_its_idempotency_key(observed: Observed) -> None:
    trace = "2" * 32
    headers = {"traceparent": f"00-{trace}-{BROWSER}-01", "idempotency-key": "picture-1"}
    reply = observed.http.post("/api/text-to-image", json=PICTURE, headers=headers)
    assert reply.status_code == 200, reply.text
    served = "atrium.text2image.v1.TextToImageService/GenerateImage"
    request, work = "POST /api/text-to-image", "image_generation fake-slow-pictures"
    hops = observed.trace(trace, request, "idempotency", work, served, "queue", "inference")
    assert hops["idempotency"].parent == hops[work].parent == hops[request].id
    assert hops[served].parent == hops[work].id
    assert hops[served].service == "atrium-text2image"
    assert hops["inference"].parent == hops[served].id
    assert hops[work].attributes["atrium.usage.images"] == 1


def test_who_leaves_ends_every_span(observed: Observed) -> None:
    trace = "3" * 32
    headers = {"traceparent": f"00-{trace}-{BROWSER}-01"}
    slow = {**CHAT, "model": "fake-slow", "max_tokens": 3000}
    with observed.http.stream("POST", "/v1/chat/completions", json=slow, headers=headers) as reply:
        next(reply.iter_bytes())
    served = "atrium.llm.v1.TextGenerationService/StreamGenerateText"
    request = "POST /v1/chat/completions"
    hops = observed.trace(trace, request, "chat fake-slow", served, "inference")
    for name in (request, "chat fake-slow", "inference"):
        assert hops[name].attributes["atrium.cancelled"] is True, name
    assert hops[served].attributes["error.type"] == "CANCELLED"
    assert hops["inference"].seconds < 9


def test_a_request_without_a_trace_begins_one_that_the_log_names(observed: Observed) -> None:
    reply = observed.http.post("/v1/chat/completions", json={**CHAT, "model": "none"})
    assert reply.status_code == 404
    trace = reply.headers["traceparent"].split("-")[1]
    hops = observed.trace(trace, "POST /v1/chat/completions")
    (span,) = hops.values()
    assert span.parent == ""
    assert span.attributes["error.type"] == "MODEL_NOT_FOUND"
    deadline = time.monotonic() + WAIT_SECONDS
    while not (lines := _lines(observed, trace)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert lines[0]["request_id"] == reply.headers["x-request-id"]
    assert lines[0]["span_id"] == span.id


def _lines(observed: Observed, trace: str) -> list[dict[str, object]]:
    text = observed.programs.gateway.log.read_text()
    return [json.loads(line) for line in text.splitlines() if trace in line]


def test_spans_hold_neither_content_nor_tenants(observed: Observed) -> None:
    sent = b"".join(observed.spans.raw)
    assert b"fake-chat" in sent
    assert SECRET.encode() not in sent
    assert TENANT.encode() not in sent


def test_a_process_that_ends_sends_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as spans:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", spans.endpoint)
        with tracing("llm") as provider:
            tracer = find_tracer(provider)
            assert tracer is not None
            span = tracer.start_span("last words")
            span.end()
        trace = f"{span.get_span_context().trace_id:032x}"
        assert [each.name for each in spans.of_trace(trace)] == ["last words"]
        assert spans.of_trace(trace)[0].service == "atrium-llm"


def test_a_collector_that_is_away_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    with tracing("llm") as provider:
        tracer = find_tracer(provider)
        assert tracer is not None
        tracer.start_span("nobody hears").end()


def documented(where: str) -> dict[str, str]:
    rows = TABLE.findall((ROOT / "docs" / "metrics.md").read_text())
    return {name: kind for name, kind, place in rows if place in ("all", where)}


def shown_by(text: str) -> dict[str, str]:
    """Names and types; a counter's name has its `_total`, as it has in queries."""
    return dict(SHOWN.findall(text))


@pytest.mark.parametrize("name", ["gateway", "llm", "text2image"])
def test_each_process_shows_what_the_table_says(observed: Observed, name: str) -> None:
    text = observed.programs.scrape(name)
    promtool = shutil.which("promtool")
    assert promtool, "scripts/test_tools.sh installs it"
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    promised = documented("gateway" if name == "gateway" else "service")
    cards = {each for each in promised if each.startswith("atrium_gpu_")}
    shown = shown_by(text)
    assert shown.keys() - cards == promised.keys() - cards
    assert {each: shown[each] for each in shown} == {each: promised[each] for each in shown}
    assert TENANT not in text


def test_the_gateway_counts_what_the_tests_did(observed: Observed) -> None:
    text = observed.programs.scrape("gateway")
    assert (
        'atrium_http_errors_total{reason="MODEL_NOT_FOUND",route="/v1/chat/completions"} 1.0'
        in text
    )
    assert 'atrium_http_errors_total{reason="CANCELLED",route="/v1/chat/completions"} 1.0' in text
    assert 'atrium_http_first_byte_seconds_count{route="/v1/chat/completions"} 2.0' in text
    assert 'atrium_admissions_total{decision="admitted",unit="",window=""} 3.0' in text
    assert 'atrium_upstream_ready{service="llm"} 1.0' in text
    assert 'atrium_upstream_ready{service="stt"} 0.0' in text
    assert 'atrium_build_info{service="gateway",version=' in text


class NoCards:
    """NVML of a machine whose cards are gone."""

    NVMLError = RuntimeError
    NVML_TEMPERATURE_GPU = 0

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 0

    def __getattr__(self, name: str) -> object:
        raise AssertionError(name)


def test_the_gpus_metrics_are_those_of_the_table() -> None:
    registry = CollectorRegistry()
    registry.register(Gpus(NoCards()))  # type: ignore[arg-type]
    promised = documented("service")
    cards = {name: kind for name, kind in promised.items() if name.startswith("atrium_gpu_")}
    assert shown_by(generate_latest(registry).decode()) == cards
    assert len(cards) == 5


def test_the_table_names_no_metric_twice() -> None:
    names = [row[0] for row in TABLE.findall(Path(ROOT / "docs" / "metrics.md").read_text())]
    assert len(names) == len(set(names)) > 40
