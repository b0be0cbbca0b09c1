"""The compose files resolve without a warning, and every container is what it should be."""

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from atrium_common.catalogue import ServiceName
from atrium_common.profiles import PROFILES, SERVICES
from tests.kit.compose import BOX, EXAMPLE, LAPTOP, PRESETS, ROOT, Config, resolve

MODELS = get_args(ServiceName)
OURS = {*MODELS, "gateway", "models", "migrate", "preflight"}
ONE_SHOTS = {"models", "migrate", "preflight"}
CORE = {"gateway", "postgres", "redis", *ONE_SHOTS}
REACHES_PROVIDERS = set(MODELS) - {"stt"}


@pytest.mark.parametrize("profile", ["", *PROFILES, "llm"])
def test_every_profile_resolves_without_a_warning(profile: str) -> None:
    for files in [(BOX,), (BOX, LAPTOP)]:
        found = resolve(*files, profiles=profile, env_files=())
        assert found.warnings == ""
        started = {*PROFILES.get(profile, (profile,) if profile else ())}
        assert set(found.config["services"]) & {*OURS, "postgres", "redis"} == CORE | started


def test_the_example_starts_everything(box: Config, laptop: Config) -> None:
    for config in (box, laptop):
        assert CORE | set(MODELS) <= set(config["services"])


@pytest.mark.parametrize("preset", PRESETS, ids=lambda file: file.stem)
def test_every_preset_resolves_without_a_warning(preset: Path) -> None:
    found = resolve(env_files=(EXAMPLE, preset))
    assert found.warnings == ""


def test_each_capabilitys_service_is_in_its_profiles() -> None:
    found = resolve(profiles="all", env_files=()).config["services"]
    assert set(SERVICES) == set(MODELS)
    for service in MODELS:
        wanted = {service, *(name for name, started in PROFILES.items() if service in started)}
        assert set(found[service]["profiles"]) == wanted
    assert not any("profiles" in found[name] for name in CORE)


def test_containers_have_no_privileges_and_bounds(box: Config, laptop: Config) -> None:
    for config in (box, laptop):
        for name in OURS | {"postgres", "redis"}:
            container = config["services"][name]
            assert container["read_only"] is True, name
            assert container["cap_drop"] == ["ALL"], name
            assert container["security_opt"] == ["no-new-privileges:true"], name
            options = container["logging"]["options"]
            assert {"max-size": "10m", "max-file": "5"}.items() <= options.items(), name
            assert {"cpus", "memory", "pids"} <= set(container["deploy"]["resources"]["limits"])
            assert container["restart"] == ("no" if name in ONE_SHOTS else "unless-stopped"), name
            assert "privileged" not in container
            assert "ports" not in container or name == "gateway"


def test_many_files_may_be_open_and_files_in_memory_leave_room(box: Config, laptop: Config) -> None:
    for config in (box, laptop):
        for name, container in config["services"].items():
            assert container["ulimits"]["nofile"] == {"soft": 65536, "hard": 65536}, name
            memory = int(container["deploy"]["resources"]["limits"]["memory"])
            files = sum(
                int(size) << (10 if unit == "k" else 20 if unit == "m" else 30)
                for mount in container.get("tmpfs", ())
                for size, unit in re.findall(r"size=(\d+)([kmg])", mount)
            )
            files += int(container.get("shm_size", 0))
            # Of what the container may take; its program needs the rest.
            assert files <= memory - (128 << 20), name


def test_cards_are_reserved_on_the_box_and_not_on_the_laptop(box: Config, laptop: Config) -> None:
    for name in MODELS:
        (device,) = box["services"][name]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["device_ids"]) == ("nvidia", ["0"])
        assert device["capabilities"] == ["gpu"]
        assert box["services"][name]["image"].endswith("-gpu")
        assert laptop["services"][name]["image"].endswith("-cpu")
        build = laptop["services"][name]["build"]
        assert build["target"] == "cpu"
        dockerfile = (ROOT / build["dockerfile"]).read_text()
        assert re.search(r"^FROM .* AS cpu$", dockerfile, re.M), name
        assert all(re.search(rf"^ARG {each}\b", dockerfile, re.M) for each in build["args"]), name
    assert "nvidia" not in str(laptop)


def test_images_are_built_from_their_own_file_and_pinned(box: Config) -> None:
    for name in OURS:
        built = box["services"][name]
        owner = {"models": None, "preflight": None, "migrate": "gateway"}.get(name, name)
        folder = f"services/{owner}" if owner else "deploy/models"
        assert built["build"]["dockerfile"] == f"{folder}/Dockerfile"
        assert built["build"]["context"] == str(ROOT)
        assert built["build"]["target"] == ("gpu" if name in MODELS else "cpu")
        dockerfile = (ROOT / built["build"]["dockerfile"]).read_text()
        assert re.search(rf"^FROM .* AS {built['build']['target']}$", dockerfile, re.M), name
        for argument in built["build"]["args"]:
            assert re.search(rf"^ARG {argument}\b", dockerfile, re.M), (name, argument)
        # "build": a stranger's image of the same name is never pulled.
        assert built["pull_policy"] == "build"
    for name in ("postgres", "redis"):
        assert re.fullmatch(r"\w+:\d+\.\d+(\.\d+)?-\w+", box["services"][name]["image"])


def test_only_the_gateway_and_what_fetches_reach_out(box: Config) -> None:
    networks, services = box["networks"], box["services"]
    assert networks["internal"]["internal"] is True
    assert networks["atrium-clients"]["internal"] is True
    assert networks["egress"]["internal"] is True  # until a catalogue names a provider
    assert networks["atrium-clients"]["name"] == "atrium-clients"
    for name, container in services.items():
        joined = set(container.get("networks") or {})
        assert ("egress" in joined) == (name in REACHES_PROVIDERS), name
        if name in OURS | {"postgres", "redis"}:
            assert ("downloads" in joined) == (name == "models"), name
            assert ("edge" in joined) == (name == "gateway"), name
            assert ("atrium-clients" in joined) == (name in {*MODELS, "gateway"}), name
    assert services["preflight"]["network_mode"] == "none"


def test_egress_opens_by_one_variable(tmp_path: Path) -> None:
    opened = tmp_path / "open.env"
    opened.write_text("EGRESS_CLOSED=false\n")
    networks = resolve(env_files=(EXAMPLE, opened)).config["networks"]
    assert networks["egress"].get("internal", False) is False


def test_weights_are_written_by_the_one_shot_alone(box: Config) -> None:
    for name in (*MODELS, "models"):
        mounts = {mount["target"]: mount for mount in box["services"][name]["volumes"]}
        assert mounts["/models"]["source"] == "models"
        assert mounts["/models"].get("read_only", False) is (name != "models")
        assert mounts["/etc/atrium/models"]["read_only"] is True
    kept = [m["source"] for s in box["services"].values() for m in s.get("volumes", ())]
    data = [source for source in kept if source.endswith("-data")]
    assert len(data) == len(set(data))  # nobody shares what they write
    assert {source for source in kept if not source.startswith("/")} <= set(box["volumes"])


def test_things_start_in_order(box: Config) -> None:
    waits = {name: one.get("depends_on", {}) for name, one in box["services"].items()}
    done, healthy = "service_completed_successfully", "service_healthy"
    for name in MODELS:
        assert {on: how["condition"] for on, how in waits[name].items()} == {
            "preflight": done,
            "models": done,
        }
    assert {on: how["condition"] for on, how in waits["gateway"].items()} == {
        "migrate": done,
        "postgres": healthy,
        "redis": healthy,
    }
    assert waits["models"]["preflight"]["condition"] == done
    assert waits["migrate"]["postgres"]["condition"] == healthy


def test_health_is_asked_by_our_own_probes(box: Config) -> None:
    for name in {*MODELS, "gateway"}:
        health = box["services"][name]["healthcheck"]
        _, python, flag, module, *more = health["test"]
        assert (python, flag) == ("/opt/atrium/venv/bin/python", "-m")
        assert more == ([] if name == "gateway" else ["--ready"])
        assert importlib.util.find_spec(module) is not None
        # Large models load for minutes before they are missed.
        assert health["start_period"] == ("2m0s" if name == "gateway" else "30m0s")
    assert all("healthcheck" in box["services"][name] for name in ("postgres", "redis"))


def test_one_shots_call_programs_that_there_are(box: Config) -> None:
    programs: set[str] = set()
    for folder in ("libs/common", "services/gateway"):
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
        programs |= set(project.get("scripts", {}))
    assert box["services"]["migrate"]["entrypoint"] == ["/opt/atrium/venv/bin/atrium"]
    assert box["services"]["models"]["entrypoint"] == ["/opt/atrium/venv/bin/atrium-models"]
    assert {"atrium", "atrium-models"} <= programs
    *_, module = box["services"]["preflight"]["entrypoint"]
    assert importlib.util.find_spec(module) is not None
