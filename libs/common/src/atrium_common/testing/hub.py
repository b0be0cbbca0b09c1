"""A model hub on this machine: serves the hub's HTTP protocol, and misbehaves on demand.

Tests of the downloader and of the CLI pull from it. Like the hub, it sends large files from
another host, to which it redirects, and takes a token at its own address only.
"""

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

_LARGE = 1024
"""Files of this many bytes and more are kept in Git LFS."""
_PAGE = 2
"""Files on a page of the listing: few, so that tests turn it."""
_BLOCK = 4096

Host = Literal["hub", "storage"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came.

    Attributes:
        host: Which of the two hosts it came to.
        path: Without the query.
        first: First byte asked for, 0 for all.
        authorization: The header, empty if it was not sent.
    """

    host: Host
    path: str
    first: int
    authorization: str


@dataclass
class HubStandIn:
    """A repository, and what goes wrong with it. Change it while it serves.

    Attributes:
        repository: ``"owner/name"``.
        revision: Its only commit.
        files: Content by path.
        token: Needed if set, else 401; any other token is answered with 403.
        cuts: By path: after so many bytes the connection of the next request breaks; each
            is used once.
        flips: By path: the byte at this place is sent wrong.
        statuses: Answered to the next requests instead of what they ask for.
        down: Answers 503 to all.
        ranges: False sends whole files whatever is asked for.
        former: What the repository was called; requests for it are redirected.
        pause_at: Bytes of a file after which `paused` is set and `go_on` awaited; 0 never.
    """

    repository: str = "owner/name"
    revision: str = "c" * 40
    files: dict[str, bytes] = field(default_factory=dict)
    token: str = ""
    cuts: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    flips: dict[str, int] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    down: bool = False
    ranges: bool = True
    former: str = ""
    pause_at: int = 0
    paused: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    asked: list[Asked] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    endpoint: str = ""
    storage: str = ""

    def content(self, path: str) -> bytes:
        """Returns a file as it is sent."""
        data = bytearray(self.files[path])
        if path in self.flips:
            data[self.flips[path]] ^= 1
        return bytes(data)

    def forget(self) -> None:
        """Empties the records of what was asked and sent."""
        self.asked.clear()
        self.sent.clear()

    @contextmanager
    def serving(self) -> Iterator["HubStandIn"]:
        """Serves on two ports of this machine while the block runs."""
        servers: list[ThreadingHTTPServer] = []
        for host in ("hub", "storage"):
            handler = type("Handler", (_Handler,), {"hub": self, "host": host})
            server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            servers.append(server)
        self.endpoint, self.storage = (
            f"http://127.0.0.1:{server.server_address[1]}" for server in servers
        )
        try:
            yield self
        finally:
            self.go_on.set()
            for server in servers:
                server.shutdown()
                server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers for one of the two hosts."""

    protocol_version = "HTTP/1.1"
    hub: HubStandIn
    host: Host

    def do_GET(self) -> None:
        """Answers a request."""
        address = urlsplit(self.path)
        path = unquote(address.path)
        first = int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        authorization = self.headers.get("authorization", "")
        self.hub.asked.append(Asked(self.host, path, first, authorization))
        if self.hub.statuses:
            return self._answer(self.hub.statuses.pop(0))
        if self.hub.down:
            return self._answer(503)
        if self.hub.former and self.hub.former in path:
            target = self.path.replace(self.hub.former, self.hub.repository)
            return self._answer(307, headers={"Location": target})
        if self.host == "storage":
            return self._file(path.removeprefix("/lfs/"), first, {})
        if self.hub.token and authorization != f"Bearer {self.hub.token}":
            status = 403 if authorization else 401
            return self._answer(status, headers={"X-Error-Code": "GatedRepo"})
        tree = f"/api/models/{self.hub.repository}/tree/{self.hub.revision}"
        if path == tree:
            return self._tree(int(parse_qs(address.query).get("cursor", ["0"])[0]))
        prefix = f"/{self.hub.repository}/resolve/{self.hub.revision}/"
        if not path.startswith(prefix):
            return self._answer(404, headers={"X-Error-Code": "RepoNotFound"})
        return self._resolve(path.removeprefix(prefix), first)

    def _resolve(self, name: str, first: int) -> None:
        if name not in self.hub.files:
            return self._answer(404, headers={"X-Error-Code": "EntryNotFound"})
        facts = {"X-Repo-Commit": self.hub.revision}
        data = self.hub.files[name]
        if len(data) < _LARGE:
            return self._file(name, first, facts)
        facts["X-Linked-Etag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        facts["X-Linked-Size"] = str(len(data))
        facts["Location"] = f"{self.hub.storage}/lfs/{name}?signature=1"
        return self._answer(302, headers=facts)

    def _tree(self, cursor: int) -> None:
        names = sorted(self.hub.files)
        rows = [_row(name, self.hub.files[name]) for name in names[cursor : cursor + _PAGE]]
        headers = {"Content-Type": "application/json"}
        if cursor + _PAGE < len(names):
            address = f"{self.hub.endpoint}{urlsplit(self.path).path}?cursor={cursor + _PAGE}"
            headers["Link"] = f'<{address}>; rel="next"'
        self._answer(200, json.dumps(rows).encode(), headers)

    def _file(self, name: str, first: int, headers: Mapping[str, str]) -> None:
        data = self.hub.content(name)
        first = first if self.hub.ranges else 0
        if first and first >= len(data):
            return self._answer(416)
        facts = {"ETag": f'"{hashlib.sha256(self.hub.files[name]).hexdigest()}"', **headers}
        if first:
            facts["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        self._head(206 if first else 200, len(data) - first, facts)
        cuts = self.hub.cuts[name]
        end = min(len(data), first + cuts.pop(0)) if cuts else len(data)
        for start in range(first, end, _BLOCK):
            block = data[start : min(start + _BLOCK, end)]
            if self.hub.pause_at and start >= self.hub.pause_at:
                self.hub.paused.set()
                self.hub.go_on.wait()
            self.wfile.write(block)
            self.hub.sent[name] += len(block)
        if end < len(data):
            self.wfile.flush()
            self.close_connection = True

    def _answer(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self._head(status, len(body), headers or {})
        self.wfile.write(body)

    def _head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def handle(self) -> None:
        """Serves a connection; callers that left or were killed are nobody's fault."""
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def _row(name: str, data: bytes) -> dict[str, object]:
    row: dict[str, object] = {"type": "file", "path": name, "size": len(data)}
    blob = b"blob %d\0" % len(data) + data
    row["oid"] = hashlib.sha1(blob, usedforsecurity=False).hexdigest()
    if len(data) >= _LARGE:
        row["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 1}
    return row
