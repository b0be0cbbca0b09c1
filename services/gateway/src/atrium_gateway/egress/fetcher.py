"""Fetches a picture or document by its address, bounded in every direction.

Endpoints call it for callers; it meets `deps.Fetcher`. Errors say what the caller can mend
and nothing of what answered: a host that refuses, hangs, drips or speaks another protocol
looks the same.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from urllib.parse import urljoin

import httpcore2
import structlog
from prometheus_client import CollectorRegistry, Counter

from atrium_common.errors import AtriumError, InvalidArgument
from atrium_gateway.egress.addresses import Address
from atrium_gateway.egress.names import PinnedBackend, Resolver, checked_addresses, resolve
from atrium_gateway.egress.rules import EgressRules
from atrium_gateway.egress.targets import Target, allowed, read_target

_log = structlog.get_logger(__name__)

NOT_ALLOWED = "URL_NOT_ALLOWED"
UNREACHABLE = "URL_UNREACHABLE"
TOO_LARGE = "URL_TOO_LARGE"
BAD_ANSWER = "URL_BAD_ANSWER"
FIELD = "image_url"

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TYPES = ("image/", "application/pdf", "application/octet-stream", "binary/octet-stream")
"""What object stores and web servers call pictures and documents; none at all will do."""
_HEADERS = (
    (b"accept", b"image/*, application/pdf"),
    (b"accept-encoding", b"identity"),
    (b"connection", b"close"),
    (b"user-agent", b"atrium-gateway"),
)
_FAILURES = (
    OSError,  # names without an address, and asyncio's own timeout
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.TimeoutException,
)


class UrlFetcher:
    """Fetches files from hosts that the operator allows."""

    def __init__(
        self,
        rules: EgressRules,
        *,
        registry: CollectorRegistry,
        resolver: Resolver = resolve,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes the fetcher of one process.

        Args:
            rules: What may be fetched.
            registry: Takes the metrics.
            resolver: Gives the addresses of names.
            tls: Checks certificates; the system's authorities if not given.
            clock: Seconds that deadlines are on.
        """
        self._rules = rules
        self._resolver = resolver
        self._tls = tls or ssl.create_default_context()
        self._clock = clock
        self._room = asyncio.Semaphore(rules.concurrency)
        self._results = Counter(
            "atrium_fetches", "Files fetched by address.", ["result"], registry=registry
        )

    async def fetch(self, url: str, *, limit: int, deadline: float) -> bytes:
        """Gives what stands at an address; see `deps.Fetcher`.

        Raises:
            InvalidArgument: With the reasons of this module; `field` is ``"image_url"``.
        """
        host = ""
        try:
            target = self._allowed(url)
            host = target.host
            left = min(deadline - self._clock(), self._rules.seconds)
            async with asyncio.timeout(left), self._room:
                data = await self._follow(target, min(limit, self._rules.max_bytes))
        except _FAILURES as err:
            # What it was is for the operator alone.
            self._note(host, UNREACHABLE, cause=type(err).__name__)
            raise _unreachable() from err
        except AtriumError as err:
            self._note(host, err.reason)
            raise
        self._note(host, "ok", size=len(data))
        return data

    def _allowed(self, url: str) -> Target:
        target = read_target(url)
        if target is None or not allowed(target, self._rules.hosts):
            raise _not_allowed()
        return target

    async def _follow(self, target: Target, limit: int) -> bytes:
        for _ in range(self._rules.max_redirects + 1):
            addresses = await checked_addresses(
                target.host, resolver=self._resolver, private=self._rules.private
            )
            if addresses is None:
                raise _not_allowed()
            found = await self._get(target, addresses, limit)
            if isinstance(found, bytes):
                return found
            onward = self._allowed(_joined(target.url, found))
            if (target.scheme, onward.scheme) == ("https", "http"):
                raise _not_allowed()
            target = onward
        raise _error(BAD_ANSWER, "The address leads on too often.")

    async def _get(self, target: Target, addresses: Sequence[Address], limit: int) -> bytes | str:
        """Gives the file, or the address that it is said to be at."""
        url = httpcore2.URL(
            scheme=target.scheme, host=target.host, port=target.port, target=target.path
        )
        connect, read = self._rules.connect_seconds, self._rules.seconds
        async with (
            PinnedBackend(addresses) as network,
            # One for each hop: a kept connection would outlive the check of its address.
            httpcore2.AsyncConnectionPool(
                ssl_context=self._tls, http2=False, network_backend=network
            ) as pool,
            pool.stream(
                "GET",
                url,
                headers=[(b"host", target.place.encode()), *_HEADERS],
                extensions={"timeout": {"connect": connect, "read": read, "write": read}},
            ) as response,
        ):
            if response.status in _REDIRECTS:
                return _header(response, b"location")
            _check(response, limit)
            data = bytearray()
            async for piece in response.aiter_stream():
                data += piece
                if len(data) > limit:
                    raise _too_large(limit)
            return bytes(data)

    def _note(self, host: str, result: str, *, size: int = 0, cause: str = "") -> None:
        # The host alone: paths and queries of object stores hold signatures.
        self._results.labels(result.lower()).inc()
        _log.info("fetch", host=host, result=result.lower(), size=size, cause=cause)


def _joined(url: str, found: str) -> str:
    try:
        return urljoin(url, found)
    except ValueError as err:
        raise _not_allowed() from err


def _check(response: httpcore2.Response, limit: int) -> None:
    """Refuses an answer by its head, before any of its body is read."""
    if response.status != HTTPStatus.OK:
        raise _error(BAD_ANSWER, f"The address answers with HTTP status {response.status}.")
    if _header(response, b"content-encoding").lower() not in ("", "identity"):
        # A few kilobytes of it may become gigabytes, and it was not asked for.
        raise _error(BAD_ANSWER, "The address answers with compressed content.")
    kind = _header(response, b"content-type").lower()
    if kind and not kind.startswith(_TYPES):
        raise _error(BAD_ANSWER, "There is no picture or document at the address.")
    size = _header(response, b"content-length")
    if size.isdigit() and int(size) > limit:
        raise _too_large(limit)


def _header(response: httpcore2.Response, name: bytes) -> str:
    """Gives the header's value; ``""`` without it. Bytes beyond ASCII make no sound address."""
    for key, value in response.headers:
        if key.lower() == name:
            return value.decode("latin-1").strip()
    return ""


def _not_allowed() -> InvalidArgument:
    return _error(NOT_ALLOWED, "Nothing is fetched from this address: send the file itself.")


def _unreachable() -> InvalidArgument:
    return _error(UNREACHABLE, "The address can't be reached, or does not answer in time.")


def _too_large(limit: int) -> InvalidArgument:
    return _error(TOO_LARGE, f"The file at the address has more than {limit} bytes.")


def _error(reason: str, message: str) -> InvalidArgument:
    return InvalidArgument(message, reason=reason, field=FIELD)
