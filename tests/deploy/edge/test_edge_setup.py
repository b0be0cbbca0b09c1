"""How the edge is set up: its protocols and certificates, its variables, its container."""

import re
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from atrium_gateway.settings import GatewaySettings
from tests.kit.compose import BOX, Config, resolve
from tests.kit.edge import Authority
from tests.kit.edge_stack import Running, get, until
from tests.kit.suite import ROOT


@pytest.mark.parametrize(
    ("version", "accepted"),
    [
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
    ids=["1.1", "1.2", "1.3"],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_tls_is_modern_and_http_2_is_offered(
    running: Running, authority: Authority, version: ssl.TLSVersion, accepted: bool
) -> None:
    context = ssl.create_default_context(cafile=str(authority.file))
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("127.0.0.1", running.edge.port)) as raw:
        if not accepted:
            with pytest.raises(OSError, match=r"(?i)version|protocol|reset"):
                context.wrap_socket(raw, server_hostname="localhost")
            return
        with context.wrap_socket(raw, server_hostname="localhost") as secured:
            assert secured.selected_alpn_protocol() == "h2"


async def test_plain_http_is_redirected_but_for_challenges(running: Running) -> None:
    moved = await get(running, f"{running.edge.plain}/v1/models?x=1")
    assert moved.status_code == 308
    assert moved.headers["location"] == f"{running.edge.url}/v1/models?x=1"
    challenges = running.edge.folder / ".well-known/acme-challenge"
    challenges.mkdir(parents=True, exist_ok=True)
    (challenges / "token").write_text("proof")
    challenge = await get(running, f"{running.edge.plain}/.well-known/acme-challenge/token")
    assert (challenge.status_code, challenge.text) == (200, "proof")
    assert (await get(running, f"{running.edge.plain}/edge/live")).status_code == 204


async def test_a_new_certificate_is_taken_up_by_itself(
    running: Running, authority: Authority
) -> None:
    def shown() -> bytes | None:
        with (
            socket.create_connection(("127.0.0.1", running.edge.port)) as raw,
            running.context.wrap_socket(raw, server_hostname="localhost") as secured,
        ):
            return secured.getpeercert(binary_form=True)

    first = shown()
    authority.issue(running.edge.folder)
    await until(lambda: shown() != first)


@pytest.mark.parametrize(
    ("variable", "value", "word"),
    [
        ("EDGE_RATE", "0", "EDGE_rate"),
        ("EDGE_GATEWAY", "gateway:8000; return 200", "EDGE_GATEWAY"),
        ("EDGE_UPPER_PROXIES", "everyone", "EDGE_UPPER_PROXIES"),
        ("EDGE_CORS_ORIGINS", '["*"]', "EDGE_CORS_ORIGINS can't be '*'"),
        ("EDGE_TLS", "/nowhere", "certificate.sh"),
    ],
)
def test_it_does_not_start_with_what_it_can_not_be(
    tmp_path: Path, variable: str, value: str, word: str
) -> None:
    script = ["deploy/nginx/certificate.sh", "self-signed", "localhost", tmp_path / "s/tls"]
    subprocess.run(script, cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/bin",
        "EDGE_RUN_DIR": str(tmp_path / "run"),
        "EDGE_TLS": str(tmp_path / "s/tls"),
        variable: value,
    }
    done = subprocess.run(
        ["sh", ROOT / "deploy/nginx/start.sh", "--test"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert word in done.stderr


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    script = ROOT / "deploy/nginx/certificate.sh"
    for name in ("one", "two"):
        command = [script, "self-signed", "localhost", tmp_path / name]
        subprocess.run(command, check=True, capture_output=True)
    before = (tmp_path / "one/privkey.pem").read_bytes()
    mixed = [script, "install", tmp_path / "two/fullchain.pem", tmp_path / "one/privkey.pem"]
    done = subprocess.run([*mixed, tmp_path / "one"], capture_output=True, check=False)
    assert done.returncode == 1
    assert (tmp_path / "one/privkey.pem").read_bytes() == before


@pytest.fixture(scope="module")
def container() -> Config:
    found = resolve(BOX, profiles="edge")
    assert found.warnings == ""
    config: Config = found.config["services"]["edge"]
    return config


def test_the_container_is_bound_and_reaches_the_gateway_alone(container: Config) -> None:
    assert re.fullmatch(r"nginxinc/nginx-unprivileged:\d+\.\d+\.\d+-\w+", container["image"])
    assert (container["read_only"], container["user"]) == (True, "101:101")
    assert container["cap_drop"] == ["ALL"]
    assert container["profiles"] == ["edge"]
    assert set(container["networks"]) == {"edge"}
    assert all(mount["read_only"] for mount in container["volumes"])
    assert [(port["published"], port["target"]) for port in container["ports"]] == [
        ("80", 8080),
        ("443", 8443),
    ]
    assert "edge" not in resolve(BOX, profiles="all").config["services"]


def test_the_edge_takes_what_the_gateway_does(container: Config) -> None:
    settings, given = GatewaySettings.model_fields, container["environment"]
    assert int(given["EDGE_MAX_BODY_BYTES"]) >= settings["max_picture_body_bytes"].default
    assert int(given["EDGE_MAX_UPLOAD_BYTES"]) >= settings["max_upload_bytes"].default
    read = set(re.findall(r"\$\{(EDGE_\w+)", (ROOT / "deploy/nginx/start.sh").read_text()))
    assert set(given) <= read
