"""Names become addresses once, all of them are checked, and only these are connected to.

A name that resolves to a public address while it is checked and to a private one while it
is connected to (DNS rebinding) gains nothing: there is no second look-up.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import Self

import httpcore2

from atrium_gateway.egress.addresses import Address, Network, reachable

Resolver = Callable[[str], Awaitable[Sequence[str]]]
"""Gives the addresses of a name, the preferred first; raises `OSError` if there is none."""

_MAX_TRIED = 4


async def resolve(name: str) -> Sequence[str]:
    """Asks the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in found]


async def checked_addresses(
    host: str, *, resolver: Resolver, private: Sequence[Network]
) -> Sequence[Address] | None:
    """Gives the addresses of a host, or ``None`` if any of them may not be reached.

    Raises:
        OSError: The name has no address.
    """
    try:
        found: Sequence[Address] = [ip_address(host)]
    except ValueError:
        # Each once, in order; a broken resolver's answer is as good as none.
        found = [ip_address(text) for text in dict.fromkeys(await resolver(host))]
    if not found:
        raise OSError("no address")
    return found if all(reachable(one, private=private) for one in found) else None


class PinnedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to the addresses that were checked, whatever host is asked for.

    An asynchronous context manager: what it connected is closed when the block ends, also
    where a handshake was cancelled in its midst.
    """

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses[:_MAX_TRIED]
        self._system = httpcore2.AnyIOBackend()
        self._streams: list[httpcore2.AsyncNetworkStream] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for stream in self._streams:
            await stream.aclose()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Tries the addresses one after the other; `host` is not looked at."""
        *first, last = self._addresses
        for address in first:
            try:
                return await self._connect(address, port, timeout)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await self._connect(last, port, timeout)

    async def _connect(
        self, address: Address, port: int, timeout: float | None
    ) -> httpcore2.AsyncNetworkStream:
        stream = await self._system.connect_tcp(str(address), port, timeout)
        self._streams.append(stream)
        return stream
