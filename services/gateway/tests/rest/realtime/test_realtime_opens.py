"""Who may open a live session, and what the others are told."""

import base64
import json
from contextlib import suppress

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from atrium_gateway.live import LiveLimits


async def refused(rest, *, path="/v1/realtime", key="", **options):
    """Tries to open a WebSocket; gives the refusal's status, headers and body."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    url = f"{rest.url.replace('http', 'ws', 1)}{path}"
    with pytest.raises(InvalidStatus) as caught:
        await connect(url, additional_headers=headers, proxy=None, **options)
    reply = caught.value.response
    assert reply.headers["x-request-id"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    return reply.status_code, reply.headers, json.loads(reply.body)["error"]


async def test_without_a_good_credential_nobody_gets_in(rest, caplog):
    status, headers, error = await refused(rest)
    assert (status, error["code"]) == (401, "invalid_api_key")
    assert headers["www-authenticate"].startswith("Bearer")
    assert "openai-insecure-api-key" in error["message"]
    status, _, error = await refused(rest, key="atr_nonsense")
    assert (status, error["code"]) == (401, "invalid_api_key")
    await rest.key("live-scope")
    token = rest.token("live-scope", scopes=frozenset({"chat"}))
    status, _, error = await refused(rest, key=token)
    assert (status, error["type"]) == (403, "permission_error")
    assert not caplog.records  # a refusal is no defect of the server


async def test_query_says_what_kind_of_session(rest):
    key = await rest.key("live-query")
    for query, status, param in (
        ("model=gpt-realtime", 404, "model"),
        ("intent=conversation", 400, "intent"),
        ("call_id=1", 400, "call_id"),
    ):
        found, _, error = await refused(rest, path=f"/v1/realtime?{query}", key=key)
        assert (found, error["param"]) == (status, param)


async def test_browsers_bring_their_key_as_a_subprotocol(rest, talk):
    key = await rest.key("live-browser")
    protocols = ["realtime", f"openai-insecure-api-key.{key}"]
    own = rest.url
    for origin in ("https://app.example", own):
        async with talk(rest, "", subprotocols=protocols, origin=origin) as client:
            # The key is not sent back.
            assert client.socket.subprotocol == "realtime"
    status, _, error = await refused(
        rest, subprotocols=protocols, origin="https://elsewhere.example"
    )
    assert (status, error["code"]) == (403, "origin_not_allowed")


async def test_other_paths_are_no_websockets(rest):
    key = await rest.key("live-paths")
    status, _, error = await refused(rest, path="/v1/chat/completions", key=key)
    assert (status, error["code"]) == (404, "not_found")
    async with httpx.AsyncClient(base_url=rest.url) as client:
        reply = await client.get("/v1/realtime")
    assert (reply.status_code, reply.headers["upgrade"]) == (426, "websocket")
    assert reply.json()["error"]["code"] == "upgrade_required"


async def test_sessions_are_bounded(start_rest, talk):
    async with start_rest(live=LiveLimits(sessions=1)) as rest:
        key = await rest.key("live-full")
        async with talk(rest, key):
            status, headers, error = await refused(rest, key=key)
            assert (status, error["code"]) == (503, "overloaded")
            assert headers["retry-after"] == "5"
        async with talk(rest, key):
            pass


async def test_session_is_in_the_log_and_the_metrics(rest, talk, until):
    key = await rest.key("live-log")
    headers = {"authorization": f"Bearer {key}", "x-request-id": "live-log-1"}
    url = f"{rest.url.replace('http', 'ws', 1)}/v1/realtime?model=whisper-1"
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        assert socket.response.headers["x-request-id"] == "live-log-1"
        await socket.recv()
    await until(lambda: b'"live-log-1"' in rest.log.getvalue())
    lines = [json.loads(line) for line in rest.log.getvalue().splitlines()]
    (line,) = [line for line in lines if line["request_id"] == "live-log-1"]
    assert (line["path"], line["status"], line["method"]) == ("/v1/realtime", 101, "GET")
    assert (line["tenant"], line["model"]) == ("live-log", "fake-whisper")
    labels = {"route": "/v1/realtime", "method": "GET", "status": "101"}
    assert rest.registry.get_sample_value("atrium_http_requests_total", labels) >= 1


async def test_message_over_a_mebibyte_ends_the_session(rest, talk):
    key = await rest.key("live-large")
    async with talk(rest, key) as client:
        audio = base64.b64encode(bytes(1 << 20)).decode()
        with suppress(ConnectionClosed):
            await client.send("input_audio_buffer.append", audio=audio)
        assert (await client.closed())[0] == 1009
