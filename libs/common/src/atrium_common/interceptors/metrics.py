"""Counts and times every RPC; called by `edge.py`, which tells it when one ends."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
from prometheus_client import Counter
from prometheus_client.metrics import Gauge, Histogram

from atrium.common.v1 import usage_pb2
from atrium_common.metrics import ServiceMetrics

_UNITS = (
    "input_tokens",
    "output_tokens",
    "characters",
    "images",
    "millimegapixel_steps",
    "pages",
)


@dataclass(slots=True)
class MethodMetrics:
    """The collectors of one method, its labels looked up once."""

    metrics: ServiceMetrics
    method: str
    seconds: Histogram
    running: Gauge
    clock: Callable[[], float]
    codes: dict[grpc.StatusCode, Counter] = field(default_factory=dict)

    def started(self) -> float:
        """Counts an RPC in; returns the time, for `ended`."""
        self.running.inc()
        return self.clock()

    def ended(self, started: float, code: grpc.StatusCode, usage: usage_pb2.Usage | None) -> None:
        """Counts an RPC out with its status and what it consumed."""
        self.running.dec()
        self.seconds.observe(self.clock() - started)
        counter = self.codes.get(code)
        if counter is None:
            counter = self.metrics.requests.labels(self.method, code.name)
            self.codes[code] = counter
        counter.inc()
        if usage is not None:
            self._count(usage)

    def _count(self, usage: usage_pb2.Usage) -> None:
        for unit in _UNITS:
            amount = getattr(usage, unit)
            if amount:
                self.metrics.usage.labels(usage.model, unit).inc(amount)
        if usage.HasField("input_audio"):
            seconds = usage.input_audio.seconds + usage.input_audio.nanos / 1e9
            self.metrics.usage.labels(usage.model, "input_audio_seconds").inc(seconds)
        if usage.HasField("output_audio"):
            seconds = usage.output_audio.seconds + usage.output_audio.nanos / 1e9
            self.metrics.usage.labels(usage.model, "output_audio_seconds").inc(seconds)


def method_metrics(
    metrics: ServiceMetrics, method: str, clock: Callable[[], float] = time.perf_counter
) -> MethodMetrics:
    """Makes the collectors of one method, once per server."""
    return MethodMetrics(
        metrics=metrics,
        method=method,
        seconds=metrics.seconds.labels(method),
        running=metrics.running.labels(method),
        clock=clock,
    )
