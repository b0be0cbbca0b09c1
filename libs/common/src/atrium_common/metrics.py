"""The Prometheus collectors of one service process, made by a factory.

`server.py` makes them and its interceptors and probes use them; a service's
`__main__` adds its queues. No tenant label: its values are without bound.
"""

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from atrium_common.domain import ModelInfo, ModelState
from atrium_common.interceptors.metrics import RpcMetrics
from atrium_common.service import Queue


class ServiceMetrics:
    """The collectors of one process, in the registry that was given.

    Attributes:
        registry: What /metrics shows.
        rpcs: Calls, by method and status, and the units they consumed.
        settlements: Reservations closed, by how.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Registers every collector in `registry`."""
        self.registry = registry
        self.rpcs = RpcMetrics(registry)
        self.settlements = Counter(
            "atrium_settlements", "Reservations closed.", ("result",), registry=registry
        )
        self._depth = Gauge(
            "atrium_queue_depth", "Requests waiting for an engine.", ("queue",), registry=registry
        )
        self._busy = Gauge(
            "atrium_queue_running", "Requests on an engine.", ("queue",), registry=registry
        )

    def watch_queue(self, name: str, queue: Queue) -> None:
        """Shows a work queue, read at each scrape; `name` is its engine's."""
        self._depth.labels(name).set_function(lambda: queue.depth)
        self._busy.labels(name).set_function(lambda: queue.running)

    def watch_models(self, models: Callable[[], Sequence[ModelInfo]]) -> None:
        """Shows the models' states, read at each scrape from another thread."""
        self.registry.register(_Models(models))


class _Models(Collector):
    def __init__(self, models: Callable[[], Sequence[ModelInfo]]) -> None:
        self._models = models

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        states = GaugeMetricFamily(
            "atrium_model_state", "1 for the state a model is in.", labels=("model", "state")
        )
        verified = GaugeMetricFamily(
            "atrium_model_verified", "1 if the model was verified since loading.", labels=("model",)
        )
        for model in self._models():
            for state in ModelState:
                states.add_metric((model.id, state.value), float(model.state is state))
            verified.add_metric((model.id,), float(model.verified_at is not None))
        return states, verified


def make_metrics(registry: CollectorRegistry | None = None) -> ServiceMetrics:
    """Makes the collectors, with the process's own, in `registry` or in a new one."""
    chosen = registry or CollectorRegistry()
    ProcessCollector(registry=chosen)
    PlatformCollector(registry=chosen)
    GCCollector(registry=chosen)
    return ServiceMetrics(chosen)
