"""The profile `observability` resolves, is bounded like the rest, and its files fit together."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from atrium_common.preflight.settings import PreflightSettings
from atrium_common.probe import PORTS
from atrium_common.profiles import PROFILES
from tests.kit.compose import BOX, LAPTOP, ROOT, Config, resolve

OBSERVERS = {"prometheus", "grafana", "loki", "alloy", "otel-collector", "jaeger"}
PAGES = {"grafana": 3000, "prometheus": 9090, "jaeger": 16686}
DEPLOY = ROOT / "deploy"


def read(file: str) -> Any:  # YAML, as deep as each program's own schema
    return yaml.safe_load((DEPLOY / file).read_text())


@pytest.fixture(scope="module")
def observed() -> Config:
    return resolve(BOX, profiles="all,observability").config


def test_the_profile_adds_these_and_nothing_else(observed: Config, box: Config) -> None:
    assert set(observed["services"]) - set(box["services"]) == OBSERVERS
    laptop = resolve(BOX, LAPTOP, profiles="all,observability")
    assert laptop.warnings == ""
    assert set(laptop.config["services"]) >= OBSERVERS
    assert resolve(BOX, profiles="all,observability").warnings == ""


def test_it_asks_nothing_of_the_cards() -> None:
    settings = PreflightSettings(profiles="all,observability")  # type: ignore[arg-type]
    assert settings.services() == PROFILES["all"]


def test_observers_have_no_privileges_and_bounds(observed: Config) -> None:
    for name in OBSERVERS:
        container = observed["services"][name]
        assert container["read_only"] is True, name
        assert container["cap_drop"] == ["ALL"], name
        assert container["security_opt"] == ["no-new-privileges:true"], name
        assert {"cpus", "memory", "pids"} <= set(container["deploy"]["resources"]["limits"])
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", container["image"]), name
        sources = [mount["source"] for mount in container.get("volumes", ())]
        assert not any("docker.sock" in source for source in sources), name
        for mount in container.get("volumes", ()):
            assert mount["type"] == "volume" or mount["read_only"] is True, mount


def test_pages_open_on_this_machine_alone(observed: Config) -> None:
    for name in OBSERVERS:
        container = observed["services"][name]
        ports = [(each["host_ip"], each["target"]) for each in container.get("ports", ())]
        assert ports == ([("127.0.0.1", PAGES[name])] if name in PAGES else []), name
        joined = {"internal", "observers"} if name in PAGES else {"internal"}
        assert set(container["networks"]) == joined, name
    assert not any("observers" in one["networks"] for n, one in _others(observed))


def _others(config: Config) -> list[tuple[str, Config]]:
    found = config["services"].items()
    return [(name, one) for name, one in found if name not in OBSERVERS and "networks" in one]


def test_configurations_are_where_the_programs_look(observed: Config) -> None:
    for name in OBSERVERS - {"grafana"}:
        container = observed["services"][name]
        asked = next(
            part for part in container["command"] if part.endswith((".yml", ".yaml", ".alloy"))
        )
        inside = asked.rpartition("=")[2]
        mounts = {mount["target"]: mount["source"] for mount in container["volumes"]}
        folder, _, file = inside.rpartition("/")
        assert (ROOT / mounts[folder] / file).is_file(), name
        assert all(Path(each).exists() for each in mounts.values() if each.startswith(str(ROOT)))
    grafana = observed["services"]["grafana"]
    mounts = {mount["target"]: mount["source"] for mount in grafana["volumes"]}
    for kind in ("datasources", "dashboards"):
        assert (ROOT / mounts[f"/etc/grafana/provisioning/{kind}"] / "atrium.yaml").is_file()
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    folder, _, file = home.rpartition("/")
    assert (ROOT / mounts[folder] / file).is_file()


def test_grafana_lets_nobody_in_without_the_password(observed: Config) -> None:
    environment = observed["services"]["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    secret = environment["GF_SECURITY_ADMIN_PASSWORD__FILE"]
    mounted = [each["target"] for each in observed["services"]["grafana"]["secrets"]]
    assert mounted == [secret] or [f"/run/secrets/{each}" for each in mounted] == [secret]


def test_prometheus_asks_every_process_on_its_own_port() -> None:
    (job,) = read("prometheus/prometheus.yml")["scrape_configs"]
    asked = {each["labels"]["service"]: each["targets"] for each in job["static_configs"]}
    services = {name: [f"{name}:{int(port) + 1000}"] for name, port in PORTS.items()}
    assert asked == {"gateway": ["gateway:9000"], **services}
    assert job["job_name"] == "atrium"
    assert job["honor_labels"] is True


def test_addresses_name_containers_and_their_ports(observed: Config) -> None:
    datasources = read("grafana/provisioning/datasources/atrium.yaml")["datasources"]
    assert {each["url"] for each in datasources} == {
        "http://prometheus:9090",
        f"http://loki:{read('loki/loki.yaml')['server']['http_listen_port']}",
        "http://jaeger:16686",
    }
    assert read("jaeger/jaeger.yaml")["extensions"]["jaeger_query"]["http"]["endpoint"].endswith(
        ":16686"
    )
    exported = read("otel/collector.yaml")["exporters"]["otlp/jaeger"]["endpoint"]
    received = read("jaeger/jaeger.yaml")["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    assert exported == f"jaeger:{received.rpartition(':')[2]}"
    assert "http://loki:3100/" in (DEPLOY / "alloy/config.alloy").read_text()
    example = (ROOT / ".env.example").read_text()
    taken = read("otel/collector.yaml")["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    assert f"http://otel-collector:{taken.rpartition(':')[2]}" in example


@pytest.mark.parametrize("file", ["otel/collector.yaml", "jaeger/jaeger.yaml"])
def test_pipelines_name_parts_that_there_are(file: str) -> None:
    config = read(file)
    for pipeline in config["service"]["pipelines"].values():
        for kind, names in pipeline.items():
            assert set(names) <= set(config[kind]), kind
    assert set(config["service"].get("extensions", ())) <= set(config.get("extensions", ()))


def test_lines_are_told_apart_by_the_label_that_docker_writes(observed: Config) -> None:
    label = "com.docker.compose.service"
    for name, container in observed["services"].items():
        assert container["logging"]["options"]["labels"] == label, name
        assert container["logging"]["driver"] == "json-file", name
    assert f'attrs.\\"{label}\\"' in (DEPLOY / "alloy/config.alloy").read_text()
