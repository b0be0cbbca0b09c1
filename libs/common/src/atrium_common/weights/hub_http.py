"""Speaks the model hub's HTTP: lists a commit's files and opens one, from any byte on.

`hub.py` and `hub_files.py` call it. Redirects are followed here, not by the HTTP library, so
that the token goes to the endpoint's own host alone and what the hub says of a file is kept.
"""

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from urllib.parse import quote, urljoin

import httpx

from atrium_common.catalogue import HubSource
from atrium_common.weights.errors import WeightsError
from atrium_common.weights.hub_listing import RemoteFile, read_listing
from atrium_common.weights.hub_options import HubOptions

_REDIRECTS = 5
_LONGEST_RETRY_AFTER = 60.0
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


class TransientError(Exception):
    """Worth another attempt; `final` is what it comes to if none helps."""

    def __init__(self, final: WeightsError, *, retry_after: float = 0.0) -> None:
        super().__init__(final.message)
        self.final = final
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that is being sent.

    Attributes:
        offset: Where its first byte belongs; 0 if the server does not send parts.
        etag: Names the content; empty if the server names none.
        total: Length of the whole file, 0 if it is not told.
        response: Gives the bytes.
    """

    offset: int
    etag: str
    total: int
    response: httpx.Response

    def blocks(self) -> Iterator[bytes]:
        """Gives the bytes as they come.

        Raises:
            TransientError: The connection broke.
        """
        try:
            yield from self.response.iter_raw()
        except httpx.TransportError as err:
            raise _broken(err) from err


class HubClient:
    """A connection pool to one hub. Thread-safe; close it by leaving its `with` block."""

    def __init__(self, options: HubOptions) -> None:
        """Opens nothing yet."""
        self._options = options
        self._origin = httpx.URL(options.endpoint).copy_with(raw_path=b"/")
        # Identity: what is counted, ranged and hashed is the file, not its compression.
        self._http = httpx.Client(
            timeout=options.timeout_seconds,
            follow_redirects=False,
            verify=_certificates(),
            headers={"accept-encoding": "identity", "user-agent": "atrium-models"},
        )
        self._sockets: set[socket.socket] = set()

    def __enter__(self) -> "HubClient":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connections."""
        self._http.close()

    def hang_up(self) -> None:
        """Ends what other threads are reading, so that nobody waits for a hub that is silent."""
        for each in tuple(self._sockets):
            with suppress(OSError):  # it was closed a moment ago
                # The plain one: TLS may not be ended under a thread that reads.
                socket.socket.shutdown(each, socket.SHUT_RDWR)

    def tree(self, source: HubSource) -> dict[str, RemoteFile]:
        """Lists the files of the source's commit, by path.

        Raises:
            TransientError: The hub did not answer, or not now.
            WeightsError: It refuses.
        """
        url = f"{self._options.endpoint}/api/models/{source.repository}/tree/{source.revision}"
        url += "?recursive=true"
        found: dict[str, RemoteFile] = {}
        while url:
            with self._sent(source, url, {}) as (response, _):
                try:
                    page = response.read()
                except httpx.TransportError as err:
                    raise _broken(err) from err
                found.update(read_listing(page, repository=source.repository))
                following = response.links.get("next", {}).get("url", "")
                url = urljoin(url, following) if following else ""
        return found

    @contextmanager
    def opened(self, source: HubSource, name: str, offset: int) -> Iterator[Opened]:
        """Opens a file from `offset` on.

        Raises:
            TransientError: The hub did not answer, or not now, or the connection broke.
            WeightsError: It refuses, or serves another commit.
        """
        path = f"{source.repository}/resolve/{source.revision}/{quote(name)}"
        headers = {"range": f"bytes={offset}-"} if offset else {}
        with self._sent(source, f"{self._options.endpoint}/{path}", headers) as (response, hub):
            commit = hub.get("x-repo-commit", source.revision)
            if commit != source.revision:
                raise WeightsError(
                    f"{self._options.endpoint} serves commit {commit[:12]} of "
                    f"{source.repository}, not {source.revision[:12]}",
                    reason="FETCH_FAILED",
                )
            etag = hub.get("x-linked-etag") or response.headers.get("etag", "")
            start, total = _extent(response)
            yield Opened(start, etag.removeprefix("W/").strip('"'), total, response)

    @contextmanager
    def _sent(
        self, source: HubSource, url: str, headers: dict[str, str]
    ) -> Iterator[tuple[httpx.Response, httpx.Headers]]:
        """Asks, and follows redirects; gives the answer and the hub's own headers."""
        hub = httpx.Headers()
        for _ in range(_REDIRECTS + 1):
            request = self._http.build_request("GET", url, headers=headers)
            request.headers.update(self._key(url))
            try:
                response = self._http.send(request, stream=True)
            except httpx.TransportError as err:
                raise _unreachable(err, self._options, source) from err
            with closing(response), self._can_hang_up(response):
                hub = httpx.Headers({**response.headers, **hub})
                if not response.is_redirect:
                    self._check(source, url, response)
                    yield response, hub
                    return
                url = _next(url, response)
        raise WeightsError(f"{source.repository}: redirected in circles", reason="FETCH_FAILED")

    @contextmanager
    def _can_hang_up(self, response: httpx.Response) -> Iterator[None]:
        connection = response.extensions["network_stream"].get_extra_info("socket")
        self._sockets.add(connection)
        try:
            yield
        finally:
            self._sockets.discard(connection)

    def _key(self, url: str) -> dict[str, str]:
        if self._options.token is None or not self._is_ours(url):
            return {}
        return {"authorization": f"Bearer {self._options.token}"}

    def _is_ours(self, url: str) -> bool:
        return httpx.URL(url).copy_with(raw_path=b"/", fragment=None) == self._origin

    def _check(self, source: HubSource, url: str, response: httpx.Response) -> None:
        """Raises what an answer that is no file means."""
        status = response.status_code
        if status in (200, 206):
            return
        if status in _TRANSIENT or (status in (401, 403) and not self._is_ours(url)):
            # A storage host's refusal is that of a link that ran out: the hub makes another.
            final = WeightsError(
                f"{source.repository}: the hub answered {status}", reason="FETCH_FAILED"
            )
            raise TransientError(final, retry_after=_retry_after(response))
        if status in (401, 403):
            raise _refused(source, response, self._options)
        if status == 404:
            missing = response.headers.get("x-error-code") == "EntryNotFound"
            what = "lacks a file of the catalogue" if missing else "is not on the hub"
            raise WeightsError(
                f"{source.repository}@{source.revision[:12]} {what} ({httpx.URL(url).path})",
                reason="MISSING_FILE" if missing else "NO_ACCESS",
            )
        raise WeightsError(f"{source.repository}: the hub answered {status}", reason="FETCH_FAILED")


@cache
def _certificates() -> ssl.SSLContext:
    """Reads the certificates of authorities once: that takes longer than a small file."""
    return httpx.create_ssl_context()


def _refused(source: HubSource, response: httpx.Response, options: HubOptions) -> WeightsError:
    page = f"{options.endpoint}/{source.repository}"
    if response.headers.get("x-error-code") == "GatedRepo" or response.status_code == 403:
        advice = f"accept its terms at {page}, then set HF_TOKEN to a token of that account"
    elif options.token is None:
        advice = f"set HF_TOKEN to a token that may read {page}"
    else:
        advice = f"the token in HF_TOKEN may not read {page}"
    return WeightsError(f"{source.repository} is closed: {advice}", reason="NO_ACCESS")


def _unreachable(
    err: httpx.TransportError, options: HubOptions, source: HubSource
) -> TransientError:
    final = WeightsError(
        f"no network: {options.endpoint} can't be reached for {source.repository} "
        f"({type(err).__name__})",
        reason="NO_NETWORK",
    )
    return TransientError(final)


def _broken(err: httpx.TransportError) -> TransientError:
    final = WeightsError(
        f"the connection broke ({type(err).__name__}); pull again to go on from there",
        reason="FETCH_FAILED",
    )
    return TransientError(final)


def _next(url: str, response: httpx.Response) -> str:
    target = urljoin(url, response.headers["location"])
    if url.startswith("https:") and not target.startswith("https:"):
        raise WeightsError("the hub sends us to an unencrypted address", reason="FETCH_FAILED")
    return target


def _extent(response: httpx.Response) -> tuple[int, int]:
    """Returns where the answer begins and how long the whole file is."""
    if response.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("content-range", ""))
        if match is not None:
            return int(match[1]), int(match[2])
    return 0, int(response.headers.get("content-length", 0))


def _retry_after(response: httpx.Response) -> float:
    """Returns the seconds that the server asks for; dates count as none."""
    value = response.headers.get("retry-after", "")
    return min(float(value), _LONGEST_RETRY_AFTER) if value.isdigit() else 0.0
