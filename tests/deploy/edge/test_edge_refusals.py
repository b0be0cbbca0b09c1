"""What the edge refuses, it refuses as the API does; what the gateway says passes unchanged."""

import asyncio
import re
from collections.abc import Iterator

import httpx
import pytest

from atrium_gateway.app import EXPOSED_HEADERS
from tests.kit.edge import Authority, Edge, running_edge
from tests.kit.edge_stack import PAGE, Running, assert_shape, get, until
from tests.kit.suite import free_ports

_PREFLIGHT = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-os",
}


@pytest.fixture(scope="module")
def strict(running: Running, authority: Authority) -> Iterator[Edge]:
    """An edge that takes one request and two more, and hides the docs."""
    gateway = running.stack.gateways[0].url.removeprefix("http://")
    pages = f'["https://other.example", "{PAGE}"]'
    given = {"rate": "1", "burst": "2", "docs": "off", "cors_origins": pages}
    with running_edge(authority, gateway=gateway, **given) as edge:
        yield edge


@pytest.fixture(scope="module")
def lonely(authority: Authority) -> Iterator[Edge]:
    """An edge whose gateway is away."""
    away = f"127.0.0.1:{free_ports(1)[0]}"
    with running_edge(authority, gateway=away, cors_origins=PAGE) as edge:
        yield edge


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
        # A balancer asks from an address that others fill.
        probes = ["/health/live", "/health/ready"] * 4
        alive = [(await client.get(probe)).status_code for probe in probes]
    assert alive == [200] * 8


@pytest.mark.parametrize(("origin", "told"), [(PAGE, True), ("https://evil.example", False)])
async def test_pages_read_the_edges_refusals_if_they_are_listed(
    running: Running, strict: Edge, lonely: Edge, origin: str, told: bool
) -> None:
    page = {"origin": origin}
    away = await get(running, f"{lonely.url}/v1/models", headers=page)
    large = {"headers": page, "content": bytes(17 << 20)}
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
                answer = await client.get("/health", headers={"x-forwarded-for": caller})
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
