"""The Dockerfiles against what they are built from: settings, locks, sources, one another.

No container engine runs here; `make images-check` takes their steps in a fresh root.
"""

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from pydantic_settings import BaseSettings

ROOT = Path(__file__).parents[2]
SERVICES = ("img2img", "img2text", "llm", "stt", "text2image", "tts")
FILES = {name: ROOT / f"services/{name}/Dockerfile" for name in (*SERVICES, "gateway")}
FILES["models"] = ROOT / "deploy/models/Dockerfile"
TARGETS = [
    (name, target)
    for name in FILES
    for target in (("cpu", "gpu") if name in SERVICES else ("cpu",))
]
RUNNING = [(name, target) for name, target in TARGETS if name != "models"]
SCRIPT = (ROOT / "deploy/images/install.sh").read_text()


def _script(name: str) -> ModuleType:
    path = ROOT / f"deploy/images/{name}.py"
    spec = importlib.util.spec_from_file_location(f"atrium_images_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


READ = _script("dockerfile").read
IMAGES = {name: READ(path) for name, path in FILES.items()}


def settings_of(name: str) -> type[BaseSettings]:
    """The settings class of a service or of the gateway."""
    module = importlib.import_module(f"atrium_{name}.settings")
    prefix = f"ATRIUM_{name.upper()}_"
    (found,) = (
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, BaseSettings)
        and kind.model_config.get("env_prefix") == prefix
    )
    return found


def test_the_dockerfiles_are_as_the_script_writes_them(tmp_path: Path) -> None:
    _script("write").write(tmp_path)
    written = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*file")}
    assert written == {path.relative_to(ROOT): path.read_text() for path in FILES.values()}, (
        "change deploy/images/write.py and run it"
    )


def test_every_service_and_every_target_has_its_stages() -> None:
    assert set(FILES) == {path.parent.name for path in ROOT.glob("services/*/src")} | {"models"}
    for name, (_, stages) in IMAGES.items():
        # The last stage is what a build without a target makes.
        wanted = ["gpu-build", "gpu"] if name in SERVICES else []
        assert list(stages) == [*wanted, "cpu-build", "cpu"], name


def test_bases_are_pinned_and_the_same_everywhere() -> None:
    pins: dict[str, set[str]] = {}
    for _, (arguments, stages) in IMAGES.items():
        for argument, image in arguments.items():
            pins.setdefault(argument, set()).add(image)
        for label, stage in stages.items():
            wanted = "CUDA_IMAGE" if label.startswith("gpu") else "PYTHON_IMAGE"
            assert stage.base == f"${{{wanted}}}"
    assert set(pins) == {"CUDA_IMAGE", "PYTHON_IMAGE"}
    for images in pins.values():
        (image,) = images
        assert re.fullmatch(r"[a-z/]+:[0-9][\w.-]+@sha256:[0-9a-f]{64}", image)


@pytest.mark.parametrize(("name", "target"), TARGETS)
def test_final_stage_is_small_and_unprivileged(name: str, target: str) -> None:
    stage = IMAGES[name][1][target]
    assert stage.last("USER") == "10001:10001"
    assert stage.last("WORKDIR") == "/data"
    assert stage.last("STOPSIGNAL") == "SIGTERM"
    # One script installs what the distribution has; the rest is copied from the build.
    assert [each.text for each in stage.all("RUN")] == [
        f"/mnt/images/install.sh system {name} {target}"
    ]
    assert {(each.flags, each.text) for each in stage.all("COPY")} == {
        ((f"--from={target}-build",), "/opt/atrium /opt/atrium"),
        ((f"--from={target}-build",), "/etc/atrium /etc/atrium"),
    }
    labels = stage.last("LABEL")
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in labels
    assert stage.entrypoint() == (
        ["atrium-models"] if name == "models" else ["python", "-m", f"atrium_{name}"]
    )


@pytest.mark.parametrize(("name", "target"), RUNNING)
def test_ports_variables_and_probe_are_the_settings(name: str, target: str) -> None:
    stage = IMAGES[name][1][target]
    settings = settings_of(name)
    fields = settings.model_fields
    ports = [str(fields[field].default) for field in fields if field.endswith("port")]
    assert sorted(stage.last("EXPOSE").split()) == sorted(ports)
    probe = "atrium_gateway.probe" if name == "gateway" else "atrium_common.probe"
    assert stage.healthcheck() == ["python", "-m", probe]
    environment = stage.environment()
    assert environment.get("ATRIUM_SERVICE") == (None if name == "gateway" else name)
    prefix = f"ATRIUM_{name.upper()}_"
    for field in fields:
        if field.endswith("host"):
            assert environment[prefix + field.upper()] == "0.0.0.0"  # noqa: S104
    known = {field.upper() for field in fields} | {"SERVICE", "STATE_DIR", "MODELS_DIR"}
    for variable in environment:
        if variable.startswith("ATRIUM_"):
            short = variable.removeprefix(prefix).removeprefix("ATRIUM_")
            assert short in known, variable


@pytest.mark.parametrize(("name", "target"), TARGETS)
def test_build_copies_what_exists_and_installs_by_the_script(name: str, target: str) -> None:
    stage = IMAGES[name][1][f"{target}-build"]
    steps = [each.text for each in stage.all("RUN")]
    assert steps == [
        f"deploy/images/install.sh {step} {name} {target}" for step in ("packages", "code")
    ]
    for run in stage.all("RUN"):
        assert any("type=cache,id=atrium-pip" in flag for flag in run.flags)
    for copy in stage.all("COPY"):
        *sources, into = copy.text.split()
        for source in sources:
            path = ROOT / source
            assert path.exists(), source
            assert into in (source, f"{path.parent.relative_to(ROOT)}/"), copy.text


@pytest.mark.parametrize(("name", "target"), TARGETS)
def test_the_locks_that_the_script_installs_are_copied(name: str, target: str) -> None:
    copied = " ".join(each.text for each in IMAGES[name][1][f"{target}-build"].all("COPY"))
    lock = "requirements.gpu.lock" if target == "gpu" else "requirements.lock"
    folder = "deploy/models" if name == "models" else f"services/{name}"
    assert f"{folder}/{lock}" in copied.split()
    text = (ROOT / folder / lock).read_text()
    assert "://" not in text
    pins = re.findall(r"^\S+==", text, re.M)
    assert len(re.findall(r"^\S+==.*$\n +--hash=sha256:", text, re.M)) == len(pins) > 0
    assert not re.findall(r"^(torch|triton)==", text, re.M)
    # Reads the memory of a card, for the metrics.
    assert ("nvidia-ml-py==" in text) == (target == "gpu" or name == "models")


def test_every_service_is_asked_for_its_work() -> None:
    assert set(_script("ask").SERVICES) == set(SERVICES)


def test_torch_is_the_same_everywhere() -> None:
    pin = re.compile(r"^(?:readonly )?TORCH=(\S+)$", re.M)
    assert pin.findall(SCRIPT) == pin.findall((ROOT / "scripts/install.sh").read_text())


def test_the_build_context_holds_what_is_copied_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    kept = [line.removeprefix("!").rstrip("/") for line in lines if line.startswith("!")]
    for name, (_, stages) in IMAGES.items():
        for stage in stages.values():
            for copy in stage.all("COPY"):
                if copy.flags:
                    continue
                for source in copy.text.split()[:-1]:
                    assert any(
                        source == entry or source.startswith(f"{entry}/") for entry in kept
                    ) or any(entry.startswith(f"{source}/") for entry in kept), (name, source)


def test_what_the_starter_catalogue_names_as_folders_is_in_the_images() -> None:
    catalogue = yaml.safe_load((ROOT / "models/starter.yaml").read_text())
    folders = {
        source["path"]
        for model in catalogue["models"]
        for source in model["sources"]
        if source["kind"] == "folder"
    }
    for folder in folders:
        assert f"models/{folder}" in SCRIPT
        assert f"!models/{folder}" in (ROOT / ".dockerignore").read_text().splitlines()


def test_the_bake_file_builds_every_image() -> None:
    text = (ROOT / "docker-bake.hcl").read_text()
    for name in SERVICES:
        assert f'"{name}"' in text
    for name in ("gateway", "models"):
        assert str(FILES[name].relative_to(ROOT)) in text


@pytest.mark.parametrize("step", ["packages", "code", "system"])
def test_the_install_script_refuses_what_it_does_not_know(step: str) -> None:
    script = ROOT / "deploy/images/install.sh"
    for words in ([], [step, "llm", "tpu"], ["dance", "llm", "cpu"]):
        done = subprocess.run(
            [script, *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.startswith("install: ")
