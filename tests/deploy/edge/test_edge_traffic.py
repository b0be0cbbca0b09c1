"""Streams, uploads and sessions go through the edge as if it were not there."""

import asyncio
import json
import socket
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import connect

from atrium_gateway.database import open_engine
from atrium_gateway.middleware.body_limit import PICTURE_PATHS, UPLOAD_PATHS
from atrium_gateway.settings import GatewaySettings
from tests.kit.direct import recording
from tests.kit.edge import Authority
from tests.kit.edge_stack import SETTLED_SECONDS, UPLOAD_BYTES, Running, assert_shape, get, until
from tests.kit.tenancy import Row, events_of

_MIB = 1 << 20
_SLOW_TOKENS = 3000
SLOW_CHAT: dict[str, Any] = {
    "model": "fake-slow",
    "max_tokens": _SLOW_TOKENS,
    "stream": True,
    "messages": [{"role": "user", "content": "Say it."}],
}


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
        async with asyncio.timeout(SETTLED_SECONDS):
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
        large = bytes(UPLOAD_BYTES)
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
        size = UPLOAD_BYTES
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
