"""What a service's numbers say: waits, batches, errors, first content, memory, GPUs, build."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from atrium.common.v1 import usage_pb2
from atrium_common.domain import Capability, ModelInfo, ModelState, Usage
from atrium_common.errors import NotFound
from atrium_common.interceptors.metrics import RpcMetrics
from atrium_common.metrics import ServiceMetrics, make_metrics
from atrium_common.telemetry.gpus import Gpus
from atrium_common.telemetry.tally import ROWS, Tally
from atrium_common.testing import gateway_metadata, running_server
from atrium_common.testing.echo import METHODS, EchoEngine, EchoServicer, call
from atrium_common.work import WorkQueue

CARD = '{gpu="GPU-1",name="Card"}'


def shown(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


@given(st.lists(st.floats(0, 200), max_size=50))
def test_a_tally_counts_each_value_in_the_first_bucket_that_holds_it(values: list[float]) -> None:
    tally = Tally(ROWS)
    for value in values:
        tally.observe(value)
    for bound, count in tally.buckets():
        assert count == sum(value <= float(bound) for value in values)
    assert tally.count == len(values)
    assert tally.total == pytest.approx(sum(values))


async def test_a_queue_tells_how_long_requests_waited() -> None:
    now = 0.0
    metrics = ServiceMetrics(CollectorRegistry())
    queue = WorkQueue(slots=1, max_queue=4, clock=lambda: now)
    metrics.watch_queue("fake", queue)
    async with queue.enter(tenant="acme"):
        now = 3.0
    text = shown(metrics.registry)
    assert 'atrium_queue_wait_seconds_count{queue="fake"} 1.0' in text
    assert 'atrium_queue_wait_seconds_sum{queue="fake"} 0.0' in text
    assert 'atrium_queue_slots{queue="fake"} 1.0' in text
    assert "acme" not in text


async def first_usage_then_text(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
    yield Usage(model="echo", inference_time=timedelta(seconds=2))


async def refused(prompts: AsyncIterator[str]) -> AsyncGenerator[Usage, None]:
    raise NotFound("no such voice", reason="VOICE_NOT_FOUND")
    yield Usage()


@pytest.mark.parametrize("method", METHODS)
async def test_errors_are_counted_by_reason_and_inference_by_model(method: str) -> None:
    for work in (first_usage_then_text, refused):
        metrics = make_metrics()
        servicer = EchoServicer(work)
        async with running_server(servicer, EchoEngine(), metrics=metrics) as (channel, _):
            try:
                await call(channel, method, metadata=gateway_metadata())
            except grpc.RpcError:
                assert work is refused
            text = shown(metrics.registry)
        name = f'method="{method}"'
        failed = f'atrium_rpc_errors_total{{{name},reason="VOICE_NOT_FOUND"}} 1.0'
        assert (failed in text) is (work is refused)
        timed = 'atrium_inference_seconds_sum{model="echo"} 2.0'
        assert (timed in text) is (work is first_usage_then_text)
        assert 'atrium_build_info{service="testing",' in text


def test_the_first_message_that_holds_more_than_usage_is_the_first_content() -> None:
    registry = CollectorRegistry()
    now = 1.0
    method = RpcMetrics(registry, clock=lambda: now).method("/a.B/C")
    started = method.started()
    now = 4.0
    assert not method.sent(started, usage_pb2.Usage())
    assert method.sent(started, usage_pb2.Usage(output_tokens=1))
    assert 'atrium_rpc_first_content_seconds_sum{method="/a.B/C"} 3.0' in shown(registry)


def test_reasons_have_a_bound() -> None:
    registry = CollectorRegistry()
    method = RpcMetrics(registry).method("/a.B/C")
    for number in range(300):
        method.failed(f"REASON_{number}")
    method.failed("REASON_7")
    text = shown(registry)
    assert text.count("atrium_rpc_errors_total{") == 201
    assert 'atrium_rpc_errors_total{method="/a.B/C",reason="OTHER"} 100.0' in text
    assert 'atrium_rpc_errors_total{method="/a.B/C",reason="REASON_7"} 2.0' in text


def test_batches_and_models_are_read_at_the_scrape() -> None:
    metrics = ServiceMetrics(CollectorRegistry())
    rows = Tally(ROWS)
    used = datetime(2026, 1, 2, tzinfo=UTC)
    model = ModelInfo(id="m", capabilities=[Capability.CHAT], engine="fake")
    models = [model]
    metrics.watch_batches(lambda: {"m": rows})
    metrics.watch_models(lambda: models)
    assert 'atrium_model_memory_bytes{model="m"} 0.0' in shown(metrics.registry)
    rows.observe(3)
    models[:] = [replace(model, state=ModelState.READY, memory_bytes=5 << 20, last_used_at=used)]
    text = shown(metrics.registry)
    assert 'atrium_batch_size_bucket{le="4",model="m"} 1.0' in text
    assert 'atrium_batch_size_bucket{le="2",model="m"} 0.0' in text
    assert 'atrium_model_memory_bytes{model="m"} 5.24288e+06' in text
    assert 'atrium_model_last_use_timestamp_seconds{model="m"} 1.767312e+09' in text


@dataclass
class Memory:
    used: int = 5
    total: int = 10


@dataclass
class Rates:
    gpu: int = 50


class FakeNvml:
    """One card; its power can't be read."""

    NVMLError = RuntimeError
    NVML_TEMPERATURE_GPU = 0

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:
        return index

    def nvmlDeviceGetUUID(self, device: object) -> str:
        return "GPU-1"

    def nvmlDeviceGetName(self, device: object) -> bytes:
        return b"Card"

    def nvmlDeviceGetUtilizationRates(self, device: object) -> Rates:
        return Rates()

    def nvmlDeviceGetMemoryInfo(self, device: object) -> Memory:
        return Memory()

    def nvmlDeviceGetTemperature(self, device: object, sensor: int) -> int:
        return 60

    def nvmlDeviceGetPowerUsage(self, device: object) -> int:
        raise RuntimeError("not supported")


def test_a_gpu_is_shown_without_what_it_can_not_tell() -> None:
    registry = CollectorRegistry()
    registry.register(Gpus(FakeNvml()))
    text = shown(registry)
    assert f"atrium_gpu_utilization_ratio{CARD} 0.5" in text
    assert f"atrium_gpu_memory_used_bytes{CARD} 5.0" in text
    assert f"atrium_gpu_temperature_celsius{CARD} 60.0" in text
    assert "atrium_gpu_power_watts{" not in text


class LostNvml(FakeNvml):
    """The driver went away."""

    def nvmlDeviceGetCount(self) -> int:
        raise RuntimeError("driver not loaded")


def test_a_lost_driver_is_no_error_of_the_scrape() -> None:
    registry = CollectorRegistry()
    registry.register(Gpus(LostNvml()))
    assert "GPU-1" not in shown(registry)
