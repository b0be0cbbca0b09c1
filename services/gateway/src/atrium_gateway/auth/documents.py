"""Fetches the JSON documents of issuers, bounded in size and time; `key_sets.py` calls it."""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable

import httpcore2

Fetch = Callable[[str], Awaitable[dict[str, object]]]
"""Gives the JSON object at an address; raises `DocumentError`."""

MAX_BYTES = 256 << 10
"""Largest document that is read."""
SECONDS = 5.0
"""Longest time that one may take."""
_HEADERS = (
    (b"accept", b"application/json"),
    (b"accept-encoding", b"identity"),
    (b"connection", b"close"),
    (b"user-agent", b"atrium-gateway"),
)
_OK = 200


class DocumentError(Exception):
    """There is no such document, or it is not to be had now."""


class DocumentFetcher:
    """Fetches over HTTP; never follows a redirect.

    Args:
        tls: Checks certificates; the system's authorities if not given.
        seconds: Longest time for one document.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, seconds: float = SECONDS) -> None:
        self._tls = tls or ssl.create_default_context()
        self._seconds = seconds

    async def __call__(self, url: str) -> dict[str, object]:
        """Gives the JSON object at an address.

        Raises:
            DocumentError: For any reason; the message is for the operator.
        """
        try:
            async with asyncio.timeout(self._seconds):
                data = await self._get(url)
            found = json.loads(data)
        except (
            OSError,
            ValueError,
            RecursionError,
            httpcore2.NetworkError,
            httpcore2.ProtocolError,
            httpcore2.TimeoutException,
            httpcore2.UnsupportedProtocol,
        ) as err:
            raise DocumentError(f"{type(err).__name__} from {url}") from err
        if not isinstance(found, dict):
            raise DocumentError(f"no JSON object at {url}")
        return found

    async def _get(self, url: str) -> bytes:
        async with (
            httpcore2.AsyncConnectionPool(ssl_context=self._tls, http2=False) as pool,
            pool.stream("GET", url, headers=list(_HEADERS)) as response,
        ):
            if response.status != _OK:
                raise DocumentError(f"status {response.status} from {url}")
            if any(name.lower() == b"content-encoding" for name, _ in response.headers):
                # A few kilobytes of it may become gigabytes, and it was not asked for.
                raise DocumentError(f"compressed content from {url}")
            data = bytearray()
            async for piece in response.aiter_stream():
                data += piece
                if len(data) > MAX_BYTES:
                    raise DocumentError(f"more than {MAX_BYTES} bytes from {url}")
            return bytes(data)
