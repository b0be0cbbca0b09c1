"""The Prometheus collectors of one process, made by a factory.

`server.py` makes them and its interceptors and probes use them; a service's
`__main__` adds its queues. No tenant label: its values are without bound. Every name
stands in docs/metrics.md.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

import prometheus_client
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from atrium_common.domain import ModelInfo, ModelState
from atrium_common.interceptors.metrics import RpcMetrics
from atrium_common.service import Queue
from atrium_common.telemetry.families import gauge, histogram
from atrium_common.telemetry.gpus import Gpus, Nvml, find_nvml
from atrium_common.telemetry.setup import version_of
from atrium_common.telemetry.tally import Tally


class ServiceMetrics:
    """The collectors of one process, in the registry that was given.

    Attributes:
        registry: What /metrics shows.
        rpcs: Calls, by method and status, and the units they consumed.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Registers what every process has in `registry`."""
        self.registry = registry
        self.rpcs = RpcMetrics(registry)

    @cached_property
    def settlements(self) -> Counter:
        """Reservations closed, by how; the services have it, the gateway keeps the books."""
        return Counter(
            "atrium_settlements", "Reservations closed.", ("result",), registry=self.registry
        )

    @cached_property
    def _queues(self) -> "_Queues":
        queues = _Queues()
        self.registry.register(queues)
        return queues

    def tell_build(self, service: str) -> None:
        """Shows which version runs, e.g. of ``"llm"``."""
        self.registry.register(_Build(service))

    def watch_queue(self, name: str, queue: Queue) -> None:
        """Shows a work queue, read at each scrape; `name` is its engine's."""
        self._queues.queues[name] = queue

    def watch_models(self, models: Callable[[], Sequence[ModelInfo]]) -> None:
        """Shows the models' states, read at each scrape from another thread."""
        self.registry.register(_Models(models))

    def watch_batches(self, batches: Callable[[], Mapping[str, Tally]]) -> None:
        """Shows how many rows shared a step, by model, read at each scrape."""
        self.registry.register(_Batches(batches))

    def watch_gpus(self, nvml: Nvml | None = None) -> None:
        """Shows the machine's GPUs, where `nvml` or the process's own NVML is."""
        found = nvml or find_nvml()
        if found is not None:
            self.registry.register(Gpus(found))


class _Undescribed(Collector):
    def describe(self) -> Iterable[Metric]:
        return ()


class _Build(_Undescribed):
    def __init__(self, service: str) -> None:
        self._labels = (service, version_of(service))

    def collect(self) -> Iterable[Metric]:
        help = "1, with the version that runs."
        yield gauge("atrium_build_info", help, ("service", "version"), [(self._labels, 1)])


class _Queues(_Undescribed):
    def __init__(self) -> None:
        self.queues: dict[str, Queue] = {}

    def collect(self) -> Iterable[Metric]:
        queues = tuple(self.queues.items())

        def of(name: str, help: str, read: Callable[[Queue], int]) -> Metric:
            return gauge(name, help, ("queue",), [((key,), read(queue)) for key, queue in queues])

        yield of("atrium_queue_depth", "Requests waiting for an engine.", lambda q: q.depth)
        yield of("atrium_queue_running", "Requests on an engine.", lambda q: q.running)
        yield of("atrium_queue_slots", "Requests that may be on an engine.", lambda q: q.slots)
        yield histogram(
            "atrium_queue_wait_seconds",
            "Wait of requests for an engine.",
            "queue",
            [(key, queue.waits) for key, queue in queues],
        )


class _Batches(_Undescribed):
    def __init__(self, batches: Callable[[], Mapping[str, Tally]]) -> None:
        self._batches = batches

    def collect(self) -> Iterable[Metric]:
        rows = tuple(self._batches().items())
        yield histogram("atrium_batch_size", "Rows that shared a step.", "model", rows)


class _Models(_Undescribed):
    def __init__(self, models: Callable[[], Sequence[ModelInfo]]) -> None:
        self._models = models

    def collect(self) -> Iterable[Metric]:
        models = self._models()

        def of(name: str, help: str, read: Callable[[ModelInfo], float]) -> Metric:
            return gauge(name, help, ("model",), [((each.id,), read(each)) for each in models])

        yield gauge(
            "atrium_model_state",
            "1 for the state a model is in.",
            ("model", "state"),
            [
                ((model.id, state.value), float(model.state is state))
                for model in models
                for state in ModelState
            ],
        )
        yield of(
            "atrium_model_verified",
            "1 if the model was verified since loading.",
            lambda model: float(model.verified_at is not None),
        )
        yield of(
            "atrium_model_memory_bytes",
            "Memory of its device that the model takes.",
            lambda model: model.memory_bytes,
        )
        yield of(
            "atrium_model_last_use_timestamp_seconds",
            "When a request last ran on the model, 0 if none since loading.",
            lambda model: model.last_used_at.timestamp() if model.last_used_at else 0,
        )


def make_metrics(registry: CollectorRegistry | None = None) -> ServiceMetrics:
    """Makes the collectors, with the process's own, in `registry` or in a new one."""
    chosen = registry or CollectorRegistry()
    # A series `<name>_created` beside each one would double them and says nothing new.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    ProcessCollector(registry=chosen)
    PlatformCollector(registry=chosen)
    GCCollector(registry=chosen)
    return ServiceMetrics(chosen)
