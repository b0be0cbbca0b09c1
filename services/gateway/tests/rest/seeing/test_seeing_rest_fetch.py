"""Pictures by their address: from hosts that the operator allows, and from nowhere else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_network

from prometheus_client import CollectorRegistry

from atrium_gateway.egress.fetcher import UrlFetcher
from atrium_gateway.egress.rules import EgressRules
from atrium_gateway.egress.targets import read_host_rule

PATH = "/api/image-to-text"


@asynccontextmanager
async def serving(files: dict[str, bytes], moved: dict[str, str]) -> AsyncIterator[int]:
    """A web server with these files by path, and paths that lead on."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        if path in moved:
            head, data = f"302 Found\r\nlocation: {moved[path]}", b""
        else:
            head = "200 OK" if path in files else "404 Not Found"
            data = files.get(path, b"")
        writer.write(f"HTTP/1.1 {head}\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def resolved(name: str) -> list[str]:
    """Knows one name; rebound ones lead to where the operator allows nothing."""
    return {"files.test": ["127.0.0.1"], "rebound.test": ["10.0.0.1"]}[name]


async def test_pictures_and_documents_come_from_allowed_hosts_only(start_rest, picture, document):
    files = {"/a.png": picture(), "/a.pdf": document(2), "/none": b"", "/text": b"hello"}
    files["/large"] = bytes(3 << 20)
    moved = {"/moved": "/a.png", "/inside": "http://10.0.0.1/a.png", "/file": "file:///etc/passwd"}
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(files, moved))
        rules = EgressRules(
            hosts=[read_host_rule(f"{host}:{port}") for host in ("files.test", "rebound.test")],
            private=[ip_network("127.0.0.1/32")],
            seconds=10.0,
        )
        fetcher = UrlFetcher(rules, registry=CollectorRegistry(), resolver=resolved)
        rest = await stack.enter_async_context(start_rest(fetcher=fetcher))
        client = await stack.enter_async_context(rest.client(await rest.key("seeing-fetch")))
        base = f"http://files.test:{port}"

        async def asked(url: str, path: str = PATH) -> tuple[int, str | None, str]:
            reply = await client.post(path, json={"image_url": url})
            told = reply.json()
            return reply.status_code, told.get("field"), told.get("code", "")

        seen = await client.post(PATH, json={"image_url": f"{base}/a.png"})
        assert "64 x 48 pixels" in seen.json()["captions"][0]["text"], seen.text
        form = {"image_url": (None, f"{base}/moved")}
        assert (await client.post(PATH, files=form)).status_code == 200
        read = await client.post("/api/ocr", params={"image_url": f"{base}/a.pdf"})
        assert read.json()["info"]["pages"] == 2
        charged = await rest.events("seeing-fetch")
        assert len(charged) == 3

        named = (400, "image_url")
        for url in (
            f"{base}/inside",
            f"{base}/file",
            f"http://rebound.test:{port}/a.png",
            f"http://127.0.0.1:{port}/a.png",
            f"http://[::ffff:127.0.0.1]:{port}/a.png",
            "file:///etc/passwd",
            "data:image/png;base64,AAAA",
        ):
            assert await asked(url) == (*named, "url_not_allowed"), url
        assert await asked(f"{base}/gone", "/api/ocr") == (*named, "url_bad_answer")
        assert await asked(f"{base}/large") == (*named, "url_too_large")
        assert await asked(f"{base}/none") == (*named, "invalid_media")
        assert await asked(f"{base}/text") == (*named, "invalid_media")
        events = await rest.events("seeing-fetch")
    assert [event for event in events if event.totals.requests] == charged
