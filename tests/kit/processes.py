"""The real programs of the suite over fake engines, each a process of its own.

Unlike `stack.py`, whose services are one process, this is what an operator runs: the tests of
metrics and traces look at each process by itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from atrium_common.testing import CREDENTIAL
from tests.kit.fakes import catalogue_file
from tests.kit.stack import GatewayProcess, Process, running_stack
from tests.kit.suite import free_ports


class ServiceProcess(Process):
    """One model service, `python -m atrium_<name>`."""

    def __init__(
        self, name: str, *, folder: Path, port: int, metrics_port: int, extra: Mapping[str, str]
    ) -> None:
        environment = {
            "ATRIUM_CATALOGUE": str(catalogue_file(folder)),
            "ATRIUM_SERVICE_CREDENTIAL": CREDENTIAL,
            "ATRIUM_PORT": str(port),
            "ATRIUM_METRICS_PORT": str(metrics_port),
            "ATRIUM_MODELS_DIR": str(folder),
            **extra,
        }
        log = folder / f"{name}.log"
        super().__init__(["-m", f"atrium_{name}"], log=log, environment=environment)
        self.metrics_port = metrics_port

    def serves(self) -> bool:
        try:
            url = f"http://127.0.0.1:{self.metrics_port}/health/ready"
            with urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


@dataclass(frozen=True)
class Programs:
    """What runs.

    Attributes:
        gateway: The gateway.
        services: Services by name.
        targets: gRPC address of each service.
        metrics: Port of /metrics by name, the gateway's among them.
        environment: Variables of the gateway, for the `atrium` command.
    """

    gateway: GatewayProcess
    services: Mapping[str, ServiceProcess]
    targets: Mapping[str, str]
    metrics: Mapping[str, int]
    environment: Mapping[str, str]

    def scrape(self, name: str) -> str:
        """What a process shows at /metrics."""
        url = f"http://127.0.0.1:{self.metrics[name]}/metrics"
        with urlopen(url, timeout=10) as answer:
            shown: str = answer.read().decode()
        return shown

    def start(self) -> None:
        """Starts all of them at once: imports take most of the time."""
        processes = (*self.services.values(), self.gateway)
        with ThreadPoolExecutor(len(processes)) as starting:
            list(starting.map(Process.start, processes))


@contextmanager
def running_programs(
    folder: Path,
    services: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    started: bool = True,
) -> Iterator[Programs]:
    """Starts a gateway and services; kills them at the end.

    Args:
        folder: Their state and logs.
        services: Short names.
        environment: Further variables of all of them.
        started: Whether they run; else the caller starts them.
    """
    extra = dict(environment or {})
    with ExitStack() as stack:
        parts = stack.enter_context(running_stack(folder, environment=extra, started=False))
        for_services = {"ATRIUM_ADMISSION_TARGET": parts.authority, **extra}
        running = {
            name: ServiceProcess(
                name,
                folder=folder,
                port=int(parts.targets[name].rpartition(":")[2]),
                metrics_port=port,
                extra=for_services,
            )
            for name, port in zip(services, free_ports(len(services)), strict=True)
        }
        (gateway,) = parts.gateways
        for process in (*running.values(), gateway):
            stack.callback(process.kill)
        metrics = {name: process.metrics_port for name, process in running.items()}
        metrics["gateway"] = gateway.metrics_port
        programs = Programs(gateway, running, parts.targets, metrics, parts.environments[0])
        if started:
            programs.start()
        yield programs
