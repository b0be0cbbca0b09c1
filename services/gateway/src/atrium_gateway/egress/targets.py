"""What an address points to, read strictly, and the hosts that an operator allows.

The fetcher reads every address here before anything is resolved, each redirect's too. What
is connected to is built from what was read, never from the text, so that no second reader
can see another host in it (RFC 3986; WHATWG's "host ends in a number" for the odd forms).
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

_PORTS = {"http": 80, "https": 443}
_MAX_URL = 8192
_URL = re.compile(r"(?i:(https?))://([^/?#]*)([^#]*)(?:#.*)?", re.ASCII)
_PLACE = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", re.ASCII)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """What an address points to.

    Attributes:
        scheme: ``"http"`` or ``"https"``.
        host: Name in lower case without a final dot, or an IP address as it is written
            canonically, without brackets.
        port: 1 to 65535, the scheme's own where the address names none.
        path: Path and query, from the first slash.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def place(self) -> str:
        """Host and port as a ``Host`` header has them; the scheme's own port left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address that this was read from, without its fragment."""
        return f"{self.scheme}://{self.place}{self.path}"


def read_target(url: str) -> Target | None:
    """Reads an address; ``None`` for one that can't be fetched, whatever is allowed.

    That is one with another scheme than http and https, with credentials, with characters
    that an address can't have, or with an IP address in another form than the usual one.
    """
    found = _URL.fullmatch(url) if len(url) <= _MAX_URL and re.fullmatch(r"[!-~]+", url) else None
    if found is None or "\\" in url:
        return None
    scheme, path = found[1].lower(), found[3]
    place = _read_place(found[2])
    if place is None:
        return None
    host, port = place
    if not path.startswith("/"):
        path = f"/{path}"
    return Target(scheme, host, port or _PORTS[scheme], path)


@dataclass(frozen=True, slots=True)
class HostRule:
    """Hosts that are allowed.

    Attributes:
        host: The host, or what it must end in.
        below: Whether names below `host` are meant, and not `host` itself.
        port: The port; ``None`` for the scheme's own.
    """

    host: str
    below: bool
    port: int | None

    def allows(self, target: Target) -> bool:
        """Whether the target's host and port are meant."""
        if target.port != (self.port or _PORTS[target.scheme]):
            return False
        return target.host.endswith(f".{self.host}") if self.below else target.host == self.host


def read_host_rule(text: str) -> HostRule:
    """Reads ``example.com`` or ``*.example.com``, which is any name below it; or an address.

    Any of them may name a port; IPv6 addresses stand in brackets.

    Raises:
        ValueError: It is none of these.
    """
    below = text.startswith("*.")
    place = _read_place(text.removeprefix("*."))
    if place is None or (below and _is_address(place[0])):
        raise ValueError(f"{text!r} is not a host, '*.' and a host, or one of these with a port")
    return HostRule(place[0], below, place[1])


def allowed(target: Target, rules: Sequence[HostRule]) -> bool:
    """Whether any rule allows the target."""
    return any(rule.allows(target) for rule in rules)


def _read_place(text: str) -> tuple[str, int | None] | None:
    """Reads a host and perhaps a port."""
    found = _PLACE.fullmatch(text)
    if found is None:
        return None
    port = int(found[2]) if found[2] is not None else None
    host = _read_host(found[1].lower())
    return None if host is None or port == 0 or (port or 0) > 65535 else (host, port)


def _read_host(host: str) -> str | None:
    try:
        if host.startswith("["):
            return str(ipaddress.IPv6Address(host[1:-1]))
        host = host.removesuffix(".")
        labels = host.split(".")
        if _NUMBER.fullmatch(labels[-1]):
            # Other readers take 127.1, 2130706433 or 0x7f.0.0.1 for an address, too.
            return str(ipaddress.IPv4Address(host))
    except ipaddress.AddressValueError:
        return None
    return host if len(host) <= 253 and all(map(_LABEL.fullmatch, labels)) else None


def _is_address(host: str) -> bool:
    return ":" in host or bool(_NUMBER.fullmatch(host.rsplit(".", 1)[-1]))
