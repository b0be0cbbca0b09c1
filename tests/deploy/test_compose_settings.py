"""Compose files, `.env.example` and presets say what the settings classes and the catalogue do."""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atrium_common.catalogue import Catalogue
from atrium_common.preflight.cards import declared
from atrium_common.preflight.settings import PreflightSettings, ShareSettings
from atrium_common.preflight.shares import Plan, make_plan
from atrium_common.probe import PORTS
from atrium_common.settings import ServiceSettings, SharedPrefixSettings
from atrium_common.variable_files import SUFFIX
from atrium_gateway.settings import GatewaySettings
from atrium_img2img.settings import ImageEditSettings
from atrium_img2text.settings import ImageUnderstandingSettings
from atrium_llm.settings import LlmSettings
from atrium_stt.settings import SttSettings
from atrium_text2image.settings import TextToImageSettings
from atrium_tts.settings import TtsSettings
from tests.kit.compose import BOX, EXAMPLE, LAPTOP, PRESETS, ROOT, Config, resolve, variables

SERVICES: dict[str, type[ServiceSettings]] = {
    "text2image": TextToImageSettings,
    "img2img": ImageEditSettings,
    "img2text": ImageUnderstandingSettings,
    "tts": TtsSettings,
    "stt": SttSettings,
    "llm": LlmSettings,
}
NO_SETTINGS = {"ATRIUM_SERVICE"}  # names the service to its probe
EVERYWHERE = "0.0.0.0"  # noqa: S104 (of the container)
BASE = variables(EXAMPLE)
SMALLEST_MIB = {"24": 23_028, "48": 46_068, "80": 81_559}
"""What nvidia-smi tells of the smallest cards of their class: A10G, L40S, H100."""

QWEN3_8B_TOKEN_KIB = 2 * 36 * 8 * 128 * 2 // 1024
"""Keys and values of a token: 36 layers, 8 heads of 128 values of 16 bits."""


def class_of(container: str) -> type[SharedPrefixSettings]:
    return {"preflight": PreflightSettings, **SERVICES}.get(container, GatewaySettings)


def known_variables(container: str) -> set[str]:
    """Every variable that the program of a container reads."""
    names = set()
    if container == "models":
        return {"ATRIUM_CATALOGUE", "ATRIUM_MODELS", "ATRIUM_MODELS_DIR", "ATRIUM_OFFLINE"}
    settings = class_of(container)
    for prefix in {settings.model_config.get("env_prefix", ""), "ATRIUM_"}:
        names |= {prefix + field.upper() for field in settings.model_fields}
    if container == "preflight":
        shares = [field.upper() for field in ShareSettings.model_fields]
        names |= {f"ATRIUM_{name.upper()}_{field}" for name in SERVICES for field in shares}
    return names


def ours(config: Config) -> Iterator[tuple[str, dict[str, str]]]:
    """The containers that run our programs, with their environment."""
    for name, container in config["services"].items():
        if container["image"].startswith("atrium/"):
            yield name, container["environment"]


def test_every_variable_is_one_of_a_settings_class(box: Config, laptop: Config) -> None:
    for config in (box, laptop):
        for name, environment in ours(config):
            given = {v.removesuffix(SUFFIX) for v in environment if v.startswith("ATRIUM_")}
            assert given - NO_SETTINGS <= known_variables(name), name


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The secrets as the operator's script makes them."""
    folder = tmp_path_factory.mktemp("box") / "secrets"
    subprocess.run([ROOT / "deploy/secrets.sh", folder], check=True, capture_output=True)
    return folder


Inside = Callable[[Config, str], None]


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, secrets: Path) -> Inside:
    """Gives this process the environment of a container, secrets and catalogue included."""

    def enter(config: Config, name: str) -> None:
        container = config["services"][name]
        mounted = {secret["target"] for secret in container.get("secrets", ())}
        for variable, value in container["environment"].items():
            if value.startswith("/run/secrets/"):
                assert value in mounted, f"{name} is not given {value}"
            value = value.replace("/run/secrets/", f"{secrets}/")
            monkeypatch.setenv(variable, value.replace("/etc/atrium/models/", f"{ROOT}/models/"))

    return enter


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("machine", ["box", "laptop"])
def test_a_service_starts_from_its_environment(
    name: str, machine: str, request: pytest.FixtureRequest, inside: Inside
) -> None:
    config: Config = request.getfixturevalue(machine)
    inside(config, name)
    settings = SERVICES[name]()
    container = config["services"][name]
    assert container["environment"]["ATRIUM_SERVICE"] == name
    assert settings.host == EVERYWHERE
    assert settings.port == SERVICES[name].model_fields["port"].default == int(PORTS[name])
    assert settings.service_credential is not None
    gateway = GatewaySettings.model_fields["admission_port"].default
    assert settings.admission_target == f"gateway:{gateway}"
    assert (str(settings.models_dir), str(settings.cache_dir)) == ("/models", "/data/models")
    assert settings.open_catalogue().for_service(name)
    assert settings.drain_seconds < seconds(container["stop_grace_period"])


def seconds(duration: str) -> float:
    minutes, rest = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration).groups()  # type: ignore[union-attr]
    return int(minutes or 0) * 60 + int(rest or 0)


def test_the_gateway_starts_from_its_environment(box: Config, inside: Inside) -> None:
    inside(box, "gateway")
    settings = GatewaySettings()
    for name, service in SERVICES.items():
        port = service.model_fields["port"].default
        assert getattr(settings, f"{name}_target") == f"{name}:{port}"
    assert {settings.host, settings.admission_host, settings.metrics_host} == {EVERYWHERE}
    assert (settings.port, settings.admission_port, settings.metrics_port) == (8000, 8001, 9000)
    (published,) = box["services"]["gateway"]["ports"]
    assert (published["host_ip"], published["target"]) == ("127.0.0.1", settings.port)
    assert len(settings.resolved_jwt_secret()) >= 32
    assert len(settings.resolved_key_pepper()) >= 32
    assert re.fullmatch(
        r"postgresql\+psycopg://atrium:[0-9a-f]{64}@postgres:5432/atrium",
        settings.resolved_database_url(),
    )
    assert re.fullmatch(
        r"redis://:[0-9a-f]{64}@redis:6379/0", settings.resolved_quota_redis_url() or ""
    )
    assert settings.drain_seconds < seconds(box["services"]["gateway"]["stop_grace_period"])


def test_the_migration_sees_the_gateways_database(box: Config, inside: Inside) -> None:
    inside(box, "gateway")
    wanted = GatewaySettings().resolved_database_url()
    inside(box, "migrate")
    assert GatewaySettings().resolved_database_url() == wanted


def test_the_example_explains_every_variable_that_is_used() -> None:
    used: set[str] = set()
    for file in (BOX, LAPTOP):
        text = re.sub(r"(?m)^\s*#.*$", "", (ROOT / file).read_text())
        used |= set(re.findall(r"(?<!\$)\$\{(\w+)", text))
    assert used == set(BASE) | {"COMPOSE_PROFILES"}
    assert BASE["COMPOSE_PROFILES"] == "all"


def test_defaults_of_the_compose_file_are_the_examples() -> None:
    defaults = dict(re.findall(r"(?<!\$)\$\{(\w+):-([^}]*)\}", (ROOT / BOX).read_text()))
    chosen = set(variables(PRESETS[0]))
    different = {k for k, v in defaults.items() if v != BASE[k]}
    assert different <= chosen  # without an env file all of the catalogue is offered


def test_presets_decide_the_same_things_and_the_example_is_one_of_them() -> None:
    (largest,) = [preset for preset in PRESETS if preset.stem == "80"]
    assert {preset.stem for preset in PRESETS} >= {"24", "48", "80", "2x24", "2x48"}
    for preset in PRESETS:
        assert list(variables(preset)) == list(variables(largest)), preset.name
        assert set(variables(preset)) <= set(BASE), preset.name
    assert {name: BASE[name] for name in variables(largest)} == variables(largest)


def plan_of(preset: Path, sizes: list[int], inside: Inside) -> Plan:
    """What the one-shot `preflight` would find."""
    inside(resolve(env_files=(EXAMPLE, preset), profiles=None).config, "preflight")
    settings = PreflightSettings()
    shares = {name: ShareSettings.of(name) for name in settings.services()}
    return make_plan(
        settings.open_catalogue(), shares, declared(sizes), reserve_mib=settings.reserve_mib
    )


def sizes_of(preset: Path) -> list[int]:
    cards = preset.stem.partition("-")[0].split("x")
    return [SMALLEST_MIB[cards[-1]]] * (int(cards[0]) if len(cards) == 2 else 1)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda file: file.stem)
def test_a_preset_fits_the_smallest_cards_of_its_class(preset: Path, inside: Inside) -> None:
    plan = plan_of(preset, sizes_of(preset), inside)
    assert (plan.problems, plan.unknown) == ((), ())
    assert all(plan.held_mib(card) > card.memory_mib / 2 for card in plan.cards)


def test_where_there_is_speech_there_is_room_for_xtts_as_well(
    inside: Inside, tmp_path: Path
) -> None:
    for preset in PRESETS:
        offered = variables(preset)["ATRIUM_MODELS"]
        if "kokoro-82m" in offered:
            more = tmp_path / preset.name
            more.write_text(f"{preset.read_text()}\nATRIUM_MODELS={offered},xtts-v2\n")
            assert plan_of(more, sizes_of(preset), inside).problems == (), preset.stem


def test_what_presets_offer_asks_for_no_licence() -> None:
    for preset in PRESETS:
        offered = Catalogue.load(ROOT / "models/gpu.yaml").only(
            variables(preset)["ATRIUM_MODELS"].split(",")
        )
        assert not any(entry.accept_license for entry in offered), preset.stem


@pytest.mark.parametrize("preset", PRESETS, ids=lambda file: file.stem)
def test_vllm_gets_room_for_one_whole_window(preset: Path, inside: Inside) -> None:
    """With less it refuses to start. The check can't know: it depends on the model's shape."""
    model = "qwen3-8b"
    shares = plan_of(preset, sizes_of(preset), inside).shares
    for share in (each for each in shares if model in each.models):
        (entry,) = Catalogue.load(ROOT / "models/gpu.yaml").only([model])
        window = int(variables(preset)["ATRIUM_LLM_MAX_MODEL_LEN"])
        left_out_mib = ((entry.context_length or 0) - window) * QWEN3_8B_TOKEN_KIB // 1024
        assert share.mib >= (entry.memory_mib or 0) - left_out_mib


@pytest.mark.parametrize("preset", PRESETS, ids=lambda file: file.stem)
def test_a_preset_starts_what_it_offers_models_of(preset: Path) -> None:
    chosen = variables(preset)
    profiles = PreflightSettings(profiles=chosen["COMPOSE_PROFILES"])  # type: ignore[arg-type]
    offered = Catalogue.load(ROOT / "models/gpu.yaml").only(chosen["ATRIUM_MODELS"].split(","))
    assert set(profiles.services()) == {entry.service for entry in offered}
    declared_mib = [int(size) for size in chosen["ATRIUM_PREFLIGHT_CARDS_MIB"].split(",")]
    assert len(declared_mib) == len(sizes_of(preset))
    assert all(size >= least for size, least in zip(declared_mib, sizes_of(preset), strict=True))


def test_a_preset_for_a_larger_card_is_refused_with_numbers(inside: Inside) -> None:
    (large,) = [preset for preset in PRESETS if preset.stem == "80"]
    problems = plan_of(large, [46_068], inside).problems
    assert (
        "llm: qwen3-8b takes 22300 MiB, its gpu_memory_utilization of 0.3 gives 13820" in problems
    )
    assert "card 0 is overfull: 63620 MiB are planned, 45568 MiB of 46068 may be used" in problems


def test_secrets_are_made_once_and_kept_from_others(secrets: Path) -> None:
    everything = resolve(profiles="all,observability").config
    wanted = {Path(secret["file"]).name for secret in everything["secrets"].values()}
    made = {file.name: file.read_bytes() for file in secrets.iterdir()}
    assert set(made) == wanted
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert all(file.stat().st_mode & 0o777 == 0o444 for file in secrets.iterdir())
    random = {value for name, value in made.items() if name not in {"hf_token", "provider_api_key"}}
    assert len(random) == 6
    assert all(re.fullmatch(rb"[0-9a-f]{64}", value) for value in random)
    again = subprocess.run(
        [ROOT / "deploy/secrets.sh", secrets], check=True, capture_output=True, text=True
    )
    assert again.stdout == ""
    assert {file.name: file.read_bytes() for file in secrets.iterdir()} == made
