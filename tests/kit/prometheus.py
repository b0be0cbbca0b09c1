"""A Prometheus of the test's own, with the committed configuration over local ports."""

import json
import math
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from tests.kit.compose import ROOT
from tests.kit.suite import free_ports

COMMITTED = ROOT / "deploy/prometheus/prometheus.yml"
_INTERVAL = "400ms"
_START_SECONDS = 30.0

Sample = dict[str, Any]  # {"metric": labels, "value": [time, text]}


@dataclass(frozen=True)
class Prometheus:
    """The running server: where it is, and the names of those that it asks."""

    url: str
    services: Collection[str]

    def get(self, path: str, **parameters: str) -> Any:  # whatever the path answers
        """Asks its API; returns `data`."""
        query = f"?{urlencode(parameters)}" if parameters else ""
        with urlopen(f"{self.url}/api/v1/{path}{query}", timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def query(self, expression: str) -> list[Sample]:
        """The series of an expression now, without those that are no number."""
        found: list[Sample] = self.get("query", query=expression)["result"]
        return [each for each in found if not math.isnan(float(each["value"][1]))]

    def targets(self) -> dict[str, str]:
        """Health of each target, by its label `service`."""
        active = self.get("targets", state="active")["activeTargets"]
        return {each["labels"]["service"]: each["health"] for each in active}

    def scraped(self) -> None:
        """Returns when each target has been asked once more from now on.

        Raises:
            TimeoutError: It was not, for half a minute.
        """
        since = time.time()
        deadline = time.monotonic() + _START_SECONDS
        while len(self.query(f"timestamp(up) > {since}")) < len(self.services):
            if time.monotonic() > deadline:
                raise TimeoutError("a target is not scraped")
            time.sleep(0.05)


@contextmanager
def running_prometheus(folder: Path, targets: Mapping[str, int]) -> Iterator[Prometheus]:
    """Starts it; kills it at the end. It looks for its targets only after five seconds.

    Args:
        folder: Its configuration and data.
        targets: Port of /metrics by service; services of the configuration that are not among
            them are left out.
    """
    program = shutil.which("prometheus")
    assert program, "scripts/test_tools.sh installs it"
    (port,) = free_ports(1)
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(_configuration(targets)))
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
                "--scrape.discovery-reload-interval=100ms",
            ],
            stdout=output,
            stderr=output,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _await_ready(url, process, log)
        yield Prometheus(url, tuple(targets))
    finally:
        process.kill()
        process.wait()


def _configuration(targets: Mapping[str, int]) -> dict[str, Any]:
    """The committed one, with other addresses and shorter intervals."""
    config: dict[str, Any] = yaml.safe_load(COMMITTED.read_text())
    config["global"] = {"scrape_interval": _INTERVAL, "evaluation_interval": _INTERVAL}
    config["global"]["scrape_timeout"] = _INTERVAL
    config["rule_files"] = [str(COMMITTED.parent / pattern) for pattern in config["rule_files"]]
    for job in config["scrape_configs"]:
        asked = {each["labels"]["service"]: each for each in job["static_configs"]}
        job["static_configs"] = [
            {**asked[service], "targets": [f"127.0.0.1:{port}"]}
            for service, port in targets.items()
        ]
    return config


def _await_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with urlopen(f"{url}/-/ready", timeout=2):
                return
        except (URLError, OSError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Prometheus does not serve:\n{log.read_text()}") from error
        time.sleep(0.02)
