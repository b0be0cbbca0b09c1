"""Errors: one shape per API, nothing of the inside, and bodies that don't fit."""

import asyncio
import base64
import json

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from atrium_common.errors import AtriumError
from atrium_gateway.errors import TABLE
from atrium_gateway.tenants.keys import KeyRepository


async def test_every_class_of_the_tree_has_its_row():
    def classes(kind):
        yield kind
        for sub in kind.__subclasses__():
            if sub.__module__ == AtriumError.__module__:
                yield from classes(sub)

    assert set(classes(AtriumError)) == set(TABLE)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/api/nothing", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/api/usage", 405),
        ("POST", "/v1/embeddings", 415),
        ("POST", "/v1/audio/transcriptions", 415),
        ("GET", "/v1/models/no-such", 404),
    ],
)
async def test_each_api_keeps_its_shape(rest, method, path, status):
    async with rest.client(await rest.key("errors-shape")) as client:
        reply = await client.request(
            method, path, content=b"x", headers={"content-type": "text/plain"}
        )
    assert reply.status_code == status
    assert reply.headers["x-request-id"].startswith("req_")
    assert reply.headers["x-content-type-options"] == "nosniff"
    if path.startswith("/v1"):
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    else:
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json()["status"] == status
        assert reply.json()["request_id"] == reply.headers["x-request-id"]


async def test_request_id_of_the_client_is_kept_if_it_is_sound(rest):
    async with rest.client(await rest.key("errors-id")) as client:
        kept = await client.get("/v1/models", headers={"x-request-id": "mine-1"})
        made = await client.get("/v1/models", headers={"x-request-id": "not mine" * 40})
    assert kept.headers["x-request-id"] == "mine-1"
    assert made.headers["x-request-id"].startswith("req_")


def _forged(rest, **changes):
    """A token with `alg: none`."""

    def part(data):
        return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()

    claims = {"iss": "atrium", "aud": "atrium", "sub": "x", "tenant": "t", "exp": 2**32} | changes
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}."


async def test_credentials_that_do_not_hold(rest):
    await rest.key("errors-token")
    good = rest.token("errors-token")
    head, body, signature = good.split(".")
    bad = [
        "",
        "Bearer",
        "Basic abc",
        f"Bearer {_forged(rest, tenant='errors-token')}",
        f"Bearer {head}.{body}.{signature[::-1]}",
        "Bearer atr_nokey_nosecret",
    ]
    async with httpx.AsyncClient(base_url=rest.url) as client:
        ok = await client.get("/v1/models", headers={"authorization": f"Bearer {good}"})
        assert ok.status_code == 200
        for value in bad:
            reply = await client.get("/v1/models", headers={"authorization": value})
            assert reply.status_code == 401
            assert reply.json()["error"]["code"] == "invalid_api_key"
            assert reply.headers["www-authenticate"].startswith("Bearer")


async def test_declared_gigabyte_is_refused_without_reading(rest):
    host, port = rest.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\n"
        b"content-length: 1073741824\r\ncontent-type: multipart/form-data; boundary=b\r\n\r\n"
    )
    async with asyncio.timeout(2):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"too_large"' in answer
    assert b"connection: close" in answer


async def test_undeclared_body_is_cut_off_at_the_limit(rest):
    async def twice_the_limit():
        for _ in range(128):
            yield b" " * 65536

    async with rest.client(await rest.key("errors-large")) as client:
        reply = await client.post(
            "/v1/chat/completions",
            content=twice_the_limit(),
            headers={"content-type": "application/json"},
        )
    assert reply.status_code == 413
    assert reply.json()["error"]["code"] == "too_large"


async def test_body_that_does_not_arrive_ends_in_time(rest):
    key = await rest.key("errors-slow")
    host, port = rest.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n"
        b"content-type: application/json\r\nauthorization: Bearer " + key.encode() + b"\r\n\r\n{"
    )
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[]", b'"text"', b"[" * 100_000, b'{"messages": "\\ud800"}']
)
async def test_bodies_that_are_no_json_object(rest, body):
    async with rest.client(await rest.key("errors-json")) as client:
        reply = await client.post(
            "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
        )
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"


async def test_defect_shows_a_reference_and_nothing_else(rest, monkeypatch):
    async def broken(*args, **kwargs):
        raise RuntimeError("secret of the inside")

    key = await rest.key("errors-defect")
    monkeypatch.setattr(rest.core.admission, "admit", broken)
    async with rest.client(key) as client:
        reply = await client.post(
            "/v1/chat/completions",
            json={"messages": [{"role": "user", "content": "a"}]},
            headers={"x-request-id": "find-me"},
        )
    assert reply.status_code == 500
    assert "secret" not in reply.text
    assert "find-me" in reply.json()["error"]["message"]


async def test_administration_says_when_the_database_is_away(rest, monkeypatch):
    async def away(self, tenant, **_):
        raise OperationalError("SELECT 1", None, Exception("connection refused at 10.0.0.1"))

    monkeypatch.setattr(KeyRepository, "list_keys", away)
    async with rest.client(await rest.key("errors-away", roles=("admin",))) as client:
        reply = await client.get("/api/keys")
    assert (reply.status_code, reply.json()["code"]) == (503, "unavailable")
    assert reply.headers["retry-after"] == "2"
    assert "10.0.0.1" not in reply.text


async def test_stream_that_breaks_ends_with_an_error_event(rest, sse, monkeypatch):
    real = rest.llm_engine._usage
    calls = 0

    def breaking(entry, read, written):
        nonlocal calls
        calls += 1
        if written > 3:
            raise RuntimeError("secret of the inside")
        return real(entry, read, written)

    key = await rest.key("errors-midway")
    monkeypatch.setattr(rest.llm_engine, "_usage", breaking)
    async with rest.client(key) as client:
        reply = await client.post(
            "/v1/chat/completions",
            json={
                "model": "fake-slow",
                "messages": [{"role": "user", "content": "a"}],
                "stream": True,
            },
        )
    events = sse(reply.text)
    assert reply.status_code == 200
    assert events[-1]["error"]["type"] == "server_error"
    assert "secret" not in reply.text
    assert "[DONE]" not in events
    (event,) = await rest.events("errors-midway")
    assert event.outcome == "failed"
    assert event.totals.output_tokens == 3


async def test_tenant_sees_only_its_own_usage(rest):
    await rest.key("errors-other")
    for roles, status in (((), 403), (("admin",), 403), (("operator",), 200)):
        async with rest.client(await rest.key("errors-mine", roles=roles)) as client:
            for path in ("/api/usage", "/api/usage/events"):
                reply = await client.get(path, params={"tenant": "errors-other"})
                assert reply.status_code == status
            own = await client.get("/api/usage", params={"tenant": "errors-mine"})
            assert own.status_code == 200


async def test_access_log_has_no_secrets_and_no_content(rest):
    key = await rest.key("errors-log")
    async with rest.client(key) as client:
        await client.post(
            "/v1/chat/completions?secret=1",
            json={"messages": [{"role": "user", "content": "very private"}], "max_tokens": 2},
            headers={"x-request-id": "log-me"},
        )
    await asyncio.sleep(0.2)
    log = rest.log.getvalue().decode()
    (line,) = [json.loads(row) for row in log.splitlines() if "log-me" in row]
    assert (line["path"], line["status"]) == ("/v1/chat/completions", 200)
    assert (line["tenant"], line["model"]) == ("errors-log", "fake-chat")
    assert key not in log
    assert "private" not in log
    assert "secret=" not in log


async def test_cors_is_an_allow_list(rest):
    async with httpx.AsyncClient(base_url=rest.url) as client:
        for origin, allowed in (("https://app.example", True), ("https://evil.example", False)):
            reply = await client.get("/health/live", headers={"origin": origin})
            assert ("access-control-allow-origin" in reply.headers) is allowed


async def test_official_clients_get_through_a_preflight(rest):
    """They name themselves in headers of their own, which differ from release to release."""
    asked = "authorization,content-type,x-stainless-os,x-stainless-retry-count,openai-beta"
    headers = {
        "access-control-request-method": "POST",
        "access-control-request-headers": asked,
    }
    async with httpx.AsyncClient(base_url=rest.url) as client:
        for origin, status in (("https://app.example", 200), ("https://evil.example", 400)):
            reply = await client.options("/v1/models", headers={"origin": origin, **headers})
            assert reply.status_code == status
        allowed = await client.options(
            "/v1/models", headers={"origin": "https://app.example", **headers}
        )
    assert allowed.headers["access-control-allow-headers"] == asked
