"""Shows what the gateway's parts know of themselves; `__main__` calls it once."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from atrium_common.metrics import ServiceMetrics
from atrium_common.telemetry.families import Readings, gauge
from atrium_gateway.core import Core
from atrium_gateway.upstreams.health import ServiceWatch


def show_process(metrics: ServiceMetrics, core: Core, services: Mapping[str, ServiceWatch]) -> None:
    """Registers the build, admission, the ledger and the services' health.

    Args:
        metrics: The process's collectors; its registry takes all of it.
        core: Its core.
        services: The watches of the services, by short name.
    """
    registry: CollectorRegistry = metrics.registry
    metrics.tell_build("gateway")
    admission, ledger = core.admission, core.ledger
    registry.register(admission.decisions)
    registry.register(admission.budgets)
    registry.register(
        Readings(
            {
                ("atrium_reservations_open", "Admitted work that is not closed."): lambda: float(
                    admission.open_reservations
                ),
                ("atrium_ledger_lag_seconds", "Age of the oldest event outside the database."): (
                    lambda: ledger.lag
                ),
                ("atrium_ledger_spool_bytes", "Size of the spool on disk."): lambda: float(
                    ledger.spool.size()
                ),
                ("atrium_ledger_failing", "1 if the last write to the spool failed."): (
                    lambda: float(ledger.failing)
                ),
            }
        )
    )
    registry.register(_Services(services))


class _Services(Collector):
    def __init__(self, services: Mapping[str, ServiceWatch]) -> None:
        self._services = services

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        yield gauge(
            "atrium_upstream_ready",
            "1 if calls to the service get through.",
            ("service",),
            [((name,), float(watch.health.serving)) for name, watch in self._services.items()],
        )
