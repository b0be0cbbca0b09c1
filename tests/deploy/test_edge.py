"""A real nginx with the edge's configuration, before a real gateway over the fake services."""

import asyncio
import json
import re
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from atrium_gateway.app import EXPOSED_HEADERS
from atrium_gateway.database import open_engine
from atrium_gateway.middleware.body_limit import PICTURE_PATHS, UPLOAD_PATHS
from atrium_gateway.settings import GatewaySettings
from tests.kit.compose import BOX, Config, resolve
from tests.kit.direct import recording
from tests.kit.edge import Authority, Edge, running_edge
from tests.kit.fakes import Fake, running_fakes
from tests.kit.stack import Stack, running_stack
from tests.kit.suite import ROOT, free_ports
from tests.kit.tenancy import Row, events_of, make_tenant

_MIB = 1 << 20
_UPLOAD_BYTES = 18 * _MIB
_SLOW_TOKENS = 3000
_PAGE = "https://app.example:8443"
_PREFLIGHT = {
    "origin": _PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-os",
}
_SETTLED_SECONDS = 20.0
SLOW_CHAT: dict[str, Any] = {
    "model": "fake-slow",
    "max_tokens": _SLOW_TOKENS,
    "stream": True,
    "messages": [{"role": "user", "content": "Say it."}],
}


@dataclass(frozen=True)
class Running:
    """What runs.

    Attributes:
        stack: The gateway behind the edge.
        services: Those behind the gateway.
        edge: The edge.
        context: Trusts its authority.
        key: Of the tenant `edge`, which may do one request at a time.
    """

    stack: Stack
    services: dict[str, Fake]
    edge: Edge
    context: ssl.SSLContext
    key: str

    @property
    def client(self) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(
            base_url=self.edge.url, verify=self.context, headers=headers, timeout=30
        )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.file))


@pytest.fixture(scope="module")
async def running(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, trusting: ssl.SSLContext
) -> AsyncIterator[Running]:
    folder: Path = tmp_path_factory.mktemp("edge")
    environment = {
        "ATRIUM_GATEWAY_TRUSTED_PROXIES": '["127.0.0.0/8"]',
        "ATRIUM_GATEWAY_LOG_LEVEL": "info",
        "ATRIUM_GATEWAY_CORS_ORIGINS": f'["{_PAGE}"]',
    }
    async with AsyncExitStack() as stack:
        made = stack.enter_context(running_stack(folder, environment=environment, started=False))
        fakes = running_fakes(folder, admission_target=made.authority, ports=made.service_ports)
        services = await stack.enter_async_context(fakes)
        (gateway,) = made.gateways
        await asyncio.to_thread(gateway.start)
        limits = [("requests", "concurrent", 1)]
        key = await asyncio.to_thread(make_tenant, made.environments[0], "edge", limits)
        edge = running_edge(
            authority,
            gateway=gateway.url.removeprefix("http://"),
            max_upload_bytes=str(_UPLOAD_BYTES),
            reload_seconds="0.1",
            upper_proxies="127.0.0.1",
        )
        yield Running(made, services, stack.enter_context(edge), trusting, key)


@pytest.fixture(scope="module")
def strict(running: Running, authority: Authority) -> Iterator[Edge]:
    """An edge that takes one request and two more, and hides the docs."""
    gateway = running.stack.gateways[0].url.removeprefix("http://")
    pages = f'["https://other.example", "{_PAGE}"]'
    given = {"rate": "1", "burst": "2", "docs": "off", "cors_origins": pages}
    with running_edge(authority, gateway=gateway, **given) as edge:
        yield edge


@pytest.fixture(scope="module")
def lonely(authority: Authority) -> Iterator[Edge]:
    """An edge whose gateway is away."""
    away = f"127.0.0.1:{free_ports(1)[0]}"
    with running_edge(authority, gateway=away, cors_origins=_PAGE) as edge:
        yield edge


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(_SETTLED_SECONDS):
        while not true():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.02)


async def get(running: Running, url: str, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(verify=running.context) as client:
        return await client.get(url, **options)


def assert_shape(answer: httpx.Response, status: int, code: str) -> None:
    """It is an answer of the API, complete and told to be kept nowhere."""
    assert answer.status_code == status
    body = answer.json()
    if answer.request.url.path.startswith("/v1"):
        assert answer.headers["content-type"] == "application/json"
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
        assert body["error"]["code"] == code
    else:
        assert answer.headers["content-type"] == "application/problem+json"
        assert (body["status"], body["code"]) == (status, code)
        assert body["type"] == f"urn:atrium:error:{code.replace('_', '-')}"
        assert body["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["cache-control"] == "no-store"


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


@pytest.mark.parametrize("path", ["/health/live", "/docs", "/v1/models", "/v1/none", "/api/none"])
async def test_each_header_is_there_once(running: Running, path: str) -> None:
    async with running.client as client:
        answer = await client.get(path, headers={"x-request-id": "req-of-mine"})
    names = [name.lower() for name, _ in answer.headers.raw]
    for name in (
        b"strict-transport-security",
        b"x-content-type-options",
        b"x-frame-options",
        b"referrer-policy",
        b"content-security-policy",
        b"cache-control",
        b"x-request-id",
        b"content-type",
    ):
        assert names.count(name) == 1, name
    assert answer.headers["x-request-id"] == "req-of-mine"
    assert answer.headers["server"] == "nginx"
    line = f'"request_id":"req-of-mine","client":"127.0.0.1","method":"GET","path":"{path}"'
    await until(lambda: line in running.edge.access_log)


@pytest.mark.parametrize("path", ["/v1/models", "/api/usage"])
async def test_what_the_gateway_refuses_passes_unchanged(running: Running, path: str) -> None:
    through = await get(running, running.edge.url + path, headers={"x-request-id": "same"})
    straight = await get(
        running, running.stack.gateways[0].url + path, headers={"x-request-id": "same"}
    )
    assert (through.status_code, through.content) == (401, straight.content)
    added = {"server", "strict-transport-security", "connection"}
    assert set(through.headers) - added == set(straight.headers) - added


@pytest.mark.parametrize("path", ["/v1/models", "/api/usage", "/docs"])
async def test_a_gateway_that_is_away_is_an_error_of_the_api(
    running: Running, lonely: Edge, path: str
) -> None:
    answer = await get(running, lonely.url + path, headers={"x-request-id": 'a"b'})
    assert_shape(answer, 503, "unavailable")
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("2", "2000")
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/v1/models", "/api/usage"])
async def test_too_many_requests_are_refused_at_the_edge(
    running: Running, strict: Edge, path: str
) -> None:
    async with httpx.AsyncClient(verify=running.context, base_url=strict.url) as client:
        answers = await asyncio.gather(*(client.get(path) for _ in range(30)))
        answer = next(each for each in answers if each.status_code == 429)
        assert_shape(answer, 429, "rate_limit_exceeded")
        assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("1", "1000")
        alive = [(await client.get("/health/live")).status_code for _ in range(5)]
    assert alive == [200] * 5


@pytest.mark.parametrize(("origin", "told"), [(_PAGE, True), ("https://evil.example", False)])
async def test_pages_read_the_edges_refusals_if_they_are_listed(
    running: Running, strict: Edge, lonely: Edge, origin: str, told: bool
) -> None:
    page = {"origin": origin}
    away = await get(running, f"{lonely.url}/v1/models", headers=page)
    large = {"headers": page, "content": bytes(17 * _MIB)}
    async with httpx.AsyncClient(verify=running.context, headers=page) as client:
        answers = await asyncio.gather(*(client.get(f"{strict.url}/v1/models") for _ in range(8)))
        busy = next(each for each in answers if each.status_code == 429)
        refused = await client.post(f"{lonely.url}/v1/embeddings", **large)
    assert (away.status_code, refused.status_code) == (503, 413)
    for answer in (away, busy, refused):
        assert answer.headers.get("access-control-allow-origin") == (origin if told else None)
        exposed = answer.headers.get("access-control-expose-headers", "").split(", ")
        assert ("retry-after" in exposed) is told
        assert set(exposed) - {""} <= set(EXPOSED_HEADERS)


async def test_a_listed_pages_preflight_is_answered_whatever_is_refused(
    running: Running, strict: Edge, lonely: Edge
) -> None:
    async with httpx.AsyncClient(verify=running.context, headers=_PREFLIGHT) as client:
        # Ten at once where three are taken, and one where there is no gateway.
        urls = [*[strict.url] * 10, lonely.url]
        answers = await asyncio.gather(*(client.options(f"{url}/v1/models") for url in urls))
        straight = await client.options(f"{running.stack.gateways[0].url}/v1/models")
        headers = {"origin": "https://evil.example"}
        stranger = await client.options(f"{lonely.url}/v1/models", headers=headers)
    assert straight.status_code == 200
    for answer in answers:
        assert answer.status_code == 204
        for name in ("allow-origin", "allow-methods", "allow-headers", "max-age"):
            name = f"access-control-{name}"
            assert answer.headers[name] == straight.headers[name]
    assert stranger.status_code == 503
    assert "access-control-allow-origin" not in stranger.headers


async def test_callers_of_one_network_share_a_limit(running: Running, authority: Authority) -> None:
    gateway = running.stack.gateways[0].url.removeprefix("http://")
    given = {"gateway": gateway, "rate": "1", "burst": "1", "upper_proxies": "127.0.0.1"}
    with running_edge(authority, **given) as edge:
        async with httpx.AsyncClient(verify=running.context, base_url=edge.url) as client:

            async def ask(caller: str) -> bool:
                answer = await client.get("/health/ready", headers={"x-forwarded-for": caller})
                return answer.status_code == 429

            one_half = [f"2001:db8:1:2:{number:x}::1" for number in range(1, 20)]
            assert any(await asyncio.gather(*map(ask, one_half)))
            for other in ("2001:db8:1:3::1", "2001:db8::1", "198.51.100.7"):
                assert not await ask(other)


async def test_hidden_paths_are_nowhere(running: Running, strict: Edge) -> None:
    assert_shape(await get(running, f"{running.edge.url}/metrics"), 404, "not_found")
    assert (await get(running, f"{running.edge.url}/openapi.json")).status_code == 200
    for path in ("/docs", "/openapi.json"):
        answer = await get(running, strict.url + path)
        assert answer.status_code in {404, 429}
        assert "swagger" not in answer.text.lower()


async def test_the_gateway_hears_who_calls(running: Running) -> None:
    for claimed, believed in [
        ("203.0.113.7", "203.0.113.7"),
        ("6.6.6.6, 203.0.113.8", "203.0.113.8"),
    ]:
        name = f"from-{believed}"
        headers = {"x-forwarded-for": claimed, "x-request-id": name}
        await get(running, f"{running.edge.url}/health", headers=headers)
        log = running.stack.gateways[0].log
        await until(lambda name=name, log=log: name in log.read_text())  # type: ignore[misc]
        (line,) = [json.loads(line) for line in log.read_text().splitlines() if name in line]
        assert line["client"] == believed


async def test_a_stream_arrives_as_it_is_made(running: Running) -> None:
    """All of it is less than a buffer of nginx, which would keep it to the end."""
    engine, steps = running.services["text2image"].engine, 60
    before = engine.steps
    drawn = {"model": "fake-slow-pictures", "prompt": "stars", "steps": steps, "stream": True}
    async with (
        running.client as client,
        client.stream("POST", "/api/text-to-image", json=drawn) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        first = await anext(answer.aiter_bytes())
        assert len(first) < 4096
        assert engine.steps - before < steps


async def test_who_leaves_stops_the_work_and_frees_the_slot(running: Running) -> None:
    engine = running.services["llm"].engine
    before = engine.steps
    name = {"x-request-id": "leaves-early"}
    async with running.client as client:
        async with client.stream(
            "POST", "/v1/chat/completions", json=SLOW_CHAT, headers=name
        ) as answer:
            assert answer.status_code == 200
            assert "content-encoding" not in answer.headers
            lines = answer.aiter_lines()
            while not (await anext(lines)).startswith("data: {"):
                pass
            busy = await client.get("/v1/models")
            second = await client.post("/v1/chat/completions", json=SLOW_CHAT)
            assert (busy.status_code, second.status_code) == (200, 429)
        event = await settled(running, "leaves-early")
        assert event["outcome"] == "cancelled"
        assert 0 < event["output_tokens"] <= engine.steps - before + 1
        assert engine.steps - before < _SLOW_TOKENS
        # Its slot is free.
        quick = {**SLOW_CHAT, "model": "fake-chat", "max_tokens": 5, "stream": False}
        again = await client.post("/v1/chat/completions", json=quick)
        assert again.status_code == 200


async def settled(running: Running, name: str) -> Row:
    engine = open_engine(running.stack.database_url)
    try:
        async with asyncio.timeout(_SETTLED_SECONDS):
            while True:
                for event in await events_of(engine, "edge"):
                    if event["request_id"] == name:
                        return event
                await asyncio.sleep(0.05)
    finally:
        await engine.dispose()


async def test_http_2_streams_too(running: Running, authority: Authority) -> None:
    command = ["curl", "--silent", "--no-buffer", "--cacert", str(authority.file), "--http2"]
    command += [
        "--header",
        f"authorization: Bearer {running.key}",
        "--write-out",
        "%{http_version}",
    ]
    body = json.dumps({**SLOW_CHAT, "model": "fake-chat", "max_tokens": 5})
    command += ["--json", body, f"{running.edge.url}/v1/chat/completions"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert done.stdout.endswith("data: [DONE]\n\n2"), done


async def test_a_large_upload_passes_and_a_larger_one_is_refused(running: Running) -> None:
    form = {"model": "fake-whisper"}
    async with running.client as client:
        taken = await client.post(
            "/v1/audio/transcriptions", data=form, files={"file": ("a.wav", recording(550))}
        )
        assert taken.status_code == 200, taken.text
        large = bytes(_UPLOAD_BYTES)
        for path in ("/v1/audio/transcriptions", "/api/speech-to-text"):
            refused = await client.post(path, data=form, files={"file": ("a.wav", large)})
            assert_shape(refused, 413, "too_large")

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(19):
                yield bytes(_MIB)

        whole = {"content-type": "application/octet-stream"}
        refused = await client.post("/api/ocr?model=fake-ocr", content=endless(), headers=whole)
        assert_shape(refused, 413, "too_large")
        refused = await client.post("/v1/embeddings", content=bytes(17 * _MIB))
        assert_shape(refused, 413, "too_large")


@pytest.mark.parametrize("path", sorted({*UPLOAD_PATHS, *PICTURE_PATHS}))
def test_bodies_that_the_gateway_would_take_pass_the_edge(running: Running, path: str) -> None:
    settings = GatewaySettings.model_fields
    size = settings["max_picture_body_bytes"].default
    if path in UPLOAD_PATHS:
        size = _UPLOAD_BYTES
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {size}\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", running.edge.port)) as raw,
        running.context.wrap_socket(raw, server_hostname="localhost") as secured,
    ):
        secured.sendall(head.encode())
        assert secured.recv(64).startswith(b"HTTP/1.1 401 ")  # before the body has come


async def test_a_websocket_passes(running: Running) -> None:
    url = f"{running.edge.url.replace('https', 'wss')}/v1/realtime?intent=transcription"
    headers = {"authorization": f"Bearer {running.key}"}
    async with connect(url, ssl=running.context, additional_headers=headers, proxy=None) as session:
        created = json.loads(await session.recv())
    assert created["type"].endswith("session.created")
    plain = await get(running, f"{running.edge.url}/v1/realtime", headers=headers)
    assert plain.status_code == 426


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
