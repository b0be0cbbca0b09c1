"""Gateways over fake services as processes that a test may kill and start again.

Unlike `suite.py`, which starts what `make run` starts, this is quick, and its parts are known
one by one: the chaos rounds and the tests over both doors stand on it.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from atrium_common.testing import CREDENTIAL
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.testing.servers import (
    PostgresServer,
    RedisServer,
    postgres_server,
    redis_server,
)
from tests.kit.fakes import READY, SERVICES, catalogue_file
from tests.kit.suite import ROOT, free_ports

LEASE_SECONDS = 2.0
_START_SECONDS = 60.0
_PEPPER = "a pepper of the tests, long enough"
_SECRET = "a secret of the tests, long enough"


class Process:
    """A Python module that runs apart, with its output in a file; `start` waits until it serves."""

    def __init__(self, arguments: Sequence[str], *, log: Path, environment: Mapping[str, str]):
        self.log = log
        self._command = [sys.executable, *arguments]
        self._environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("ATRIUM_")},
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts it; returns when it serves, raises with its output if it does not."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self.serves():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"it does not serve:\n{self.tail()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL: not one line more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def serves(self) -> bool:
        """Whether it answers."""
        raise NotImplementedError

    def tail(self) -> str:
        """The end of what it wrote."""
        return self.log.read_text(errors="replace")[-4000:]


class FakesProcess(Process):
    """The six services."""

    def serves(self) -> bool:
        return READY in self.log.read_text(errors="replace")


class GatewayProcess(Process):
    """One gateway; `url` is its REST API, `admission` the address for the services."""

    def __init__(self, settings: Mapping[str, str], *, log: Path, ports: Sequence[int]) -> None:
        names = ("PORT", "ADMISSION_PORT", "METRICS_PORT")
        given = {
            f"ATRIUM_GATEWAY_{name}": str(port) for name, port in zip(names, ports, strict=True)
        }
        super().__init__(["-m", "atrium_gateway"], log=log, environment={**settings, **given})
        self.url = f"http://127.0.0.1:{ports[0]}"
        self.admission = f"127.0.0.1:{ports[1]}"
        self.metrics_port = ports[2]

    def serves(self) -> bool:
        try:
            with urlopen(f"{self.url}/health/ready", timeout=2) as answer:
                return answer.status == 200
        except (URLError, OSError):
            return False


@dataclass(frozen=True, kw_only=True)
class Stack:
    """What runs.

    Attributes:
        gateways: One, or several over one Redis and one PostgreSQL.
        fakes: The services.
        targets: gRPC address of each service, in the order of `SERVICES`.
        authority: Whom the services ask for admission.
        folder: State and logs.
        environments: Variables of each gateway, for the `atrium` command.
        redis: Where quotas are counted, if not in process.
        postgres: Where the ledger is, if not in SQLite.
    """

    gateways: Sequence[GatewayProcess]
    fakes: FakesProcess
    targets: Mapping[str, str]
    authority: str
    folder: Path
    environments: Sequence[Mapping[str, str]]
    redis: RedisServer | None
    postgres: PostgresServer | None

    @property
    def service_ports(self) -> Sequence[int]:
        """gRPC ports of the services."""
        return [int(target.rpartition(":")[2]) for target in self.targets.values()]

    @property
    def database_url(self) -> str:
        """Where the ledger is."""
        state = self.environments[0]["ATRIUM_GATEWAY_STATE_DIR"]
        given = self.environments[0].get("ATRIUM_GATEWAY_DATABASE_URL")
        return GatewaySettings(state_dir=Path(state), database_url=given).resolved_database_url()

    @property
    def spools(self) -> Sequence[Path]:
        """Folders of the gateways' spools."""
        return [Path(each["ATRIUM_GATEWAY_STATE_DIR"]) / "spool" for each in self.environments]


def shares_quotas() -> bool:
    """Whether gateways can count in a Redis together."""
    return "quota_redis_url" in GatewaySettings.model_fields


@contextmanager
def running_stack(
    folder: Path,
    *,
    replicas: int = 1,
    postgres: bool = False,
    redis: bool = False,
    environment: Mapping[str, str] | None = None,
    started: bool = True,
) -> Iterator[Stack]:
    """Starts everything; kills it at the end.

    Args:
        folder: Its state and logs.
        replicas: Gateways; more than one need `redis` and `postgres`.
        postgres: Whether the ledger is in a PostgreSQL.
        redis: Whether quotas are counted in a Redis.
        environment: Further variables of the gateways.
        started: Whether services and gateways run; else the caller starts them, to have the
            services in its own process (`running_fakes`) and see what they do.
    """
    numbers = free_ports(len(SERVICES) + 3 * replicas)
    service_ports, rest = numbers[: len(SERVICES)], numbers[len(SERVICES) :]
    with ExitStack() as stack:
        database = stack.enter_context(postgres_server(fsync=True)) if postgres else None
        counters = stack.enter_context(redis_server(durable=True)) if redis else None
        shared = _shared(folder, service_ports)
        if database is not None:
            shared["ATRIUM_GATEWAY_DATABASE_URL"] = database.new_database("atrium")
        if counters is not None:
            shared["ATRIUM_GATEWAY_QUOTA_REDIS_URL"] = counters.url
        gateways, environments = [], []
        for number in range(replicas):
            state = folder / f"gateway-{number}"
            given = {**shared, "ATRIUM_GATEWAY_STATE_DIR": str(state), **(environment or {})}
            ports = rest[3 * number : 3 * number + 3]
            gateways.append(
                GatewayProcess(given, log=folder / f"gateway-{number}.log", ports=ports)
            )
            environments.append(given)
        authority = "ipv4:" + ",".join(gateway.admission for gateway in gateways)
        fakes = FakesProcess(
            ["-m", "tests.kit.fakes", str(folder), authority, *map(str, service_ports)],
            log=folder / "fakes.log",
            environment={},
        )
        (folder / "fakes.log").touch()
        for process in (fakes, *gateways):
            stack.callback(process.kill)
        for process in (fakes, *gateways) if started else ():
            process.start()
        targets = {
            name: f"127.0.0.1:{port}" for name, port in zip(SERVICES, service_ports, strict=True)
        }
        yield Stack(
            gateways=gateways,
            fakes=fakes,
            targets=targets,
            authority=authority,
            folder=folder,
            environments=environments,
            redis=counters,
            postgres=database,
        )


def _shared(folder: Path, service_ports: Sequence[int]) -> dict[str, str]:
    targets = {
        f"ATRIUM_GATEWAY_{name.upper()}_TARGET": f"127.0.0.1:{port}"
        for name, port in zip(SERVICES, service_ports, strict=True)
    }
    return targets | {
        "ATRIUM_GATEWAY_CATALOGUE": str(catalogue_file(folder)),
        "ATRIUM_GATEWAY_SERVICE_CREDENTIAL": CREDENTIAL,
        "ATRIUM_GATEWAY_KEY_PEPPER": _PEPPER,
        "ATRIUM_GATEWAY_JWT_SECRET": _SECRET,
        "ATRIUM_GATEWAY_DEFAULT_LIMIT": "none",
        "ATRIUM_GATEWAY_LEASE_SECONDS": str(LEASE_SECONDS),
        "ATRIUM_GATEWAY_WRITER_INTERVAL_SECONDS": "0.1",
        "ATRIUM_GATEWAY_SPOOL_SEGMENT_BYTES": "65536",
        "ATRIUM_GATEWAY_LOG_LEVEL": "warning",
    }
