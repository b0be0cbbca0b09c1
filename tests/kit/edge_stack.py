"""A gateway over fake services behind an edge, and how `tests/deploy/edge` asks it."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from tests.kit.edge import Edge
from tests.kit.fakes import Fake
from tests.kit.stack import Stack

UPLOAD_BYTES = 18 << 20
"""Most that the edge takes of an upload."""
PAGE = "https://app.example:8443"
"""Where a page may ask from."""
SETTLED_SECONDS = 20.0
"""Longest wait for what a log or the ledger is to show."""


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
        """A client of the edge with the key."""
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(
            base_url=self.edge.url, verify=self.context, headers=headers, timeout=30
        )


async def until(true: Callable[[], bool]) -> None:
    """Waits until a log or a file shows it."""
    async with asyncio.timeout(SETTLED_SECONDS):
        while not true():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.02)


async def get(running: Running, url: str, **options: Any) -> httpx.Response:
    """Asks any address without the key."""
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
