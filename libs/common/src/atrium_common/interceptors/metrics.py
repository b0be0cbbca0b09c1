"""Counts and times every RPC; `edge.py` tells it when one ends, /metrics reads it.

Plain numbers, turned into samples when they are scraped: prometheus_client's own
collectors take a lock and a lookup for each, which is a third of the edge's time.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Final

import grpc
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from atrium.common.v1 import usage_pb2

# From an embedding's milliseconds to a long picture's minutes.
_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_UNITS: Final = (
    "input_tokens",
    "output_tokens",
    "characters",
    "images",
    "millimegapixel_steps",
    "pages",
)
_LENGTHS: Final = ("input_audio", "output_audio")


class MethodMetrics:
    """The numbers of one method. Written by the event loop's thread alone."""

    def __init__(
        self, method: str, used: Counter[tuple[str, str]], clock: Callable[[], float]
    ) -> None:
        self.method = method
        self.running = 0
        self.seconds = 0.0
        self.codes: Counter[str] = Counter()
        self.buckets = [0] * (len(_BOUNDS) + 1)
        self._used = used
        self._clock = clock

    def started(self) -> float:
        """Counts an RPC in; returns the time, for `ended`."""
        self.running += 1
        return self._clock()

    def ended(self, started: float, code: grpc.StatusCode, usage: usage_pb2.Usage | None) -> None:
        """Counts an RPC out with its status and what it consumed."""
        seconds = self._clock() - started
        self.running -= 1
        self.seconds += seconds
        self.buckets[bisect_left(_BOUNDS, seconds)] += 1
        self.codes[code.name] += 1
        if usage is None:
            return
        for unit in _UNITS:
            amount: int = getattr(usage, unit)
            if amount:
                self._used[usage.model, unit] += amount
        for unit in _LENGTHS:
            if usage.HasField(unit):  # type: ignore[arg-type]
                length = getattr(usage, unit).ToMilliseconds()
                self._used[usage.model, f"{unit}_milliseconds"] += length


class RpcMetrics(Collector):
    """The numbers of one server's RPCs, shown in `registry`."""

    def __init__(
        self, registry: CollectorRegistry, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._clock = clock
        self._methods: dict[str, MethodMetrics] = {}
        self._used: Counter[tuple[str, str]] = Counter()
        registry.register(self)

    def method(self, name: str) -> MethodMetrics:
        """Returns the numbers of a method by its full path."""
        found = self._methods.get(name)
        if found is None:
            found = self._methods[name] = MethodMetrics(name, self._used, self._clock)
        return found

    def describe(self) -> Iterable[Metric]:
        """Names nothing ahead: the methods are known once they are called."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Makes the samples, in the scrape's thread."""
        requests = CounterMetricFamily(
            "atrium_rpc_requests", "RPCs ended.", labels=("method", "code")
        )
        running = GaugeMetricFamily("atrium_rpc_running", "RPCs running now.", labels=("method",))
        seconds = HistogramMetricFamily(
            "atrium_rpc_seconds", "Duration of RPCs.", labels=("method",)
        )
        used = CounterMetricFamily(
            "atrium_usage_units", "Units consumed.", labels=("model", "unit")
        )
        names = [*map(str, _BOUNDS), "+Inf"]
        for method in tuple(self._methods.values()):
            for code, count in tuple(method.codes.items()):
                requests.add_metric((method.method, code), count)
            running.add_metric((method.method,), method.running)
            totals = list(zip(names, accumulate(method.buckets), strict=True))
            seconds.add_metric((method.method,), buckets=totals, sum_value=method.seconds)
        for labels, amount in tuple(self._used.items()):
            used.add_metric(labels, amount)
        return requests, running, seconds, used
