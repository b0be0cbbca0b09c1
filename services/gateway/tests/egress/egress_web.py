"""Servers for the tests of `egress/`: each path of `Web` answers with what a test wrote.

Raw sockets, so that answers may break every rule of HTTP.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_network

from prometheus_client import CollectorRegistry

from atrium_gateway.egress.fetcher import UrlFetcher
from atrium_gateway.egress.rules import EgressRules
from atrium_gateway.egress.targets import read_host_rule

OPEN, TRAP = "127.0.0.1", "127.0.0.2"
Answer = bytes | Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Web:
    """A running server.

    Attributes:
        port: Where it listens, on both addresses.
        answers: What each path answers: bytes as they are, or what writes them.
        heads: The head of each request that arrived, in order.
        trapped: Connections to the trap.
        running: Connections that are open now; `most` is the most there were.
        closed: Set whenever a connection of the server has ended.
    """

    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    heads: list[bytes] = field(default_factory=list)
    trapped: int = 0
    running: int = 0
    most: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str, *, host: str = "files.test", scheme: str = "http") -> str:
        """The address of a path."""
        return f"{scheme}://{host}:{self.port}{path}"

    def redirect(self, path: str, to: str, *, status: int = 302, more: str = "") -> None:
        """Makes a path lead on."""
        self.answers[path] = (
            f"HTTP/1.1 {status} Found\r\nLocation: {to}\r\n{more}Content-Length: 0\r\n\r\n".encode()
        )

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request."""
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            answer = self.answers[head.split(b" ")[1].decode()]
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            return  # the client has gone
        finally:
            self.running -= 1
            self.closed.set()
            writer.close()

    async def trap(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Counts who should not have come."""
        self.trapped += 1
        writer.close()


@asynccontextmanager
async def running_web(tls: ssl.SSLContext | None = None) -> AsyncIterator[Web]:
    """Runs a server and its trap."""
    web = Web()
    server = await asyncio.start_server(web.serve, OPEN, 0, ssl=tls)
    web.port = server.sockets[0].getsockname()[1]
    trap = await asyncio.start_server(web.trap, TRAP, web.port)
    async with server, trap:
        yield web


class Names:
    """A resolver that answers as it is told; the answers of a name come one by one."""

    def __init__(self, **names: Sequence[Sequence[str]]) -> None:
        self.names = {name.replace("_", "."): list(answers) for name, answers in names.items()}
        self.asked: list[str] = []

    async def __call__(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        answers = self.names.get(name)
        if not answers:
            raise OSError("unknown name")
        return answers.pop(0) if len(answers) > 1 else answers[0]


def make_fetcher(
    *hosts: str,
    names: Names | None = None,
    private: Sequence[str] = (OPEN,),
    tls: ssl.SSLContext | None = None,
    registry: CollectorRegistry | None = None,
    **rules: float,
) -> UrlFetcher:
    """Makes a fetcher; ``files.test`` is the server unless `names` says otherwise."""
    return UrlFetcher(
        EgressRules(
            hosts=[read_host_rule(host) for host in hosts],
            private=[ip_network(network) for network in private],
            **{"seconds": 5.0, **rules},  # type: ignore[arg-type]
        ),
        registry=registry or CollectorRegistry(),
        resolver=names or Names(files_test=[[OPEN]]),
        tls=tls or _authorities(),
    )


@cache
def _authorities() -> ssl.SSLContext:
    """The system's; reading them takes longer than a test."""
    return ssl.create_default_context()


def ok(body: bytes, *headers: str) -> bytes:
    """A whole answer."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
