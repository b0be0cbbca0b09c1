"""Counts and times every RPC; `edge.py` tells it when one ends, /metrics reads it.

Plain numbers, turned into samples when they are scraped: prometheus_client's own
collectors take a lock and a lookup for each, which is a third of the edge's time.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Final

import grpc
from google.protobuf.message import Message
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from atrium.common.v1 import usage_pb2
from atrium_common.telemetry.families import histogram
from atrium_common.telemetry.tally import Reasons, Tally

_UNITS: Final = (
    "input_tokens",
    "output_tokens",
    "characters",
    "images",
    "millimegapixel_steps",
    "pages",
)
_LENGTHS: Final = ("input_audio", "output_audio")


_ACCOUNTS: Final = frozenset({"usage", "usage_by_model"})


class MethodMetrics:
    """The numbers of one method. Written by the event loop's thread alone."""

    def __init__(self, method: str, server: "RpcMetrics") -> None:
        self.method = method
        self.running = 0
        self.codes: Counter[str] = Counter()
        self.seconds = Tally()
        self.first = Tally()
        self._server = server
        self._clock = server.clock

    def started(self) -> float:
        """Counts an RPC in; returns the time, for `ended` and `sent`."""
        self.running += 1
        return self._clock()

    def failed(self, reason: str) -> None:
        """Counts why an RPC ends with an error."""
        self._server.reasons.add(self.method, reason)

    def sent(self, started: float, message: Message) -> bool:
        """Looks for the first message of a stream that tells more than usage; says if it is."""
        if all(field.name in _ACCOUNTS for field, _ in message.ListFields()):
            return False
        self.first.observe(self._clock() - started)
        return True

    def ended(self, started: float, code: grpc.StatusCode, usage: usage_pb2.Usage | None) -> None:
        """Counts an RPC out with its status and what it consumed."""
        self.running -= 1
        self.seconds.observe(self._clock() - started)
        self.codes[code.name] += 1
        if usage is None:
            return
        used = self._server.used
        for unit in _UNITS:
            amount: int = getattr(usage, unit)
            if amount:
                used[usage.model, unit] += amount
        for unit in _LENGTHS:
            if usage.HasField(unit):  # type: ignore[arg-type]
                length = getattr(usage, unit).ToMilliseconds()
                used[usage.model, f"{unit}_milliseconds"] += length
        if usage.model and usage.HasField("inference_time"):
            taken = usage.inference_time
            self._server.inference[usage.model].observe(taken.seconds + taken.nanos / 1e9)


class RpcMetrics(Collector):
    """The numbers of one server's RPCs, shown in `registry`.

    Attributes:
        clock: Seconds of a clock that never goes back.
        reasons: Errors by method and reason.
        used: Units consumed by model and unit.
        inference: Inference times by model.
    """

    def __init__(
        self, registry: CollectorRegistry, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.clock = clock
        self.reasons = Reasons()
        self.used: Counter[tuple[str, str]] = Counter()
        self.inference: defaultdict[str, Tally] = defaultdict(Tally)
        self._methods: dict[str, MethodMetrics] = {}
        registry.register(self)

    def method(self, name: str) -> MethodMetrics:
        """Returns the numbers of a method by its full path."""
        found = self._methods.get(name)
        if found is None:
            found = self._methods[name] = MethodMetrics(name, self)
        return found

    def describe(self) -> Iterable[Metric]:
        """Names nothing ahead: the methods are known once they are called."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Makes the samples, in the scrape's thread."""
        methods = tuple(self._methods.values())
        requests = CounterMetricFamily(
            "atrium_rpc_requests", "RPCs ended.", labels=("method", "code")
        )
        failed = CounterMetricFamily(
            "atrium_rpc_errors", "RPCs ended with an error.", labels=("method", "reason")
        )
        running = GaugeMetricFamily("atrium_rpc_running", "RPCs running now.", labels=("method",))
        for method in methods:
            for code, count in tuple(method.codes.items()):
                requests.add_metric((method.method, code), count)
            running.add_metric((method.method,), method.running)
        for labels, count in tuple(self.reasons.counts.items()):
            failed.add_metric(labels, count)
        yield from (requests, failed, running)
        yield histogram(
            "atrium_rpc_seconds", "Duration of RPCs.", "method", _named(methods, "seconds")
        )
        yield from filter(_has_samples, self._work(methods))

    def _work(self, methods: Iterable[MethodMetrics]) -> Iterable[Metric]:
        """What a server without engines, the gateway's, never has."""
        yield histogram(
            "atrium_rpc_first_content_seconds",
            "From a streamed RPC's start to its first message with content.",
            "method",
            _named(methods, "first"),
        )
        used = CounterMetricFamily(
            "atrium_usage_units", "Units consumed.", labels=("model", "unit")
        )
        for labels, amount in tuple(self.used.items()):
            used.add_metric(labels, amount)
        yield used
        yield histogram(
            "atrium_inference_seconds",
            "Inference time of RPCs.",
            "model",
            tuple(self.inference.items()),
        )


def _named(methods: Iterable[MethodMetrics], tally: str) -> Iterable[tuple[str, Tally]]:
    return [(method.method, getattr(method, tally)) for method in methods]


def _has_samples(family: Metric) -> bool:
    return bool(family.samples)
