"""Addresses of callers: what a peer's is, behind proxies too, and which networks it is in.

The REST server and the admission servicer ask who calls from where; the authenticator
holds it against the networks of a key.
"""

from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Network = IPv4Network | IPv6Network

_MAX_FORWARDED = 32
"""Longer chains of proxies are nobody's; a header is bounded work."""
_MAPPED_BITS = 96
"""Bits that IPv6 puts before an address of IPv4."""


def read_network(text: str) -> Network:
    """Reads a network such as ``10.1.0.0/16``, or one address; raises `ValueError`.

    One of IPv4 that is written as IPv6 (``::ffff:10.1.0.0/112``) is that of IPv4, as callers'
    addresses are; one of a single link (``fe80::1%eth0``) means nothing to other machines.
    """
    if "%" in text:
        raise ValueError("a network is of no single link")
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Reads several networks; raises `ValueError`."""
    return tuple(read_network(text) for text in texts)


def within(address: str, networks: Sequence[Network]) -> bool:
    """Whether `address` is in one of `networks`; an unknown one, ``""``, is in none."""
    found = _read(address)
    return found is not None and any(
        found in network for network in networks if network.version == found.version
    )


def client_address(peer: str, forwarded: str, trusted: Sequence[Network]) -> str:
    """The address of a caller, told by proxies only as far as they are trusted.

    Args:
        peer: The other end of the connection.
        forwarded: Its ``X-Forwarded-For``: addresses, the nearest last.
        trusted: Networks of proxies whose word counts.

    Returns:
        The nearest address that is no trusted proxy's; ``""`` if a trusted proxy names
        something that is no address.
    """
    if not forwarded or not within(peer, trusted):
        return peer
    hops = forwarded.rsplit(",", _MAX_FORWARDED)
    for hop in reversed(hops[-_MAX_FORWARDED:]):
        found = _read(_without_port(hop.strip()))
        if found is None:
            return ""
        peer = str(found)
        if not within(peer, trusted):
            break
    return peer


def _read(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.scope_id is not None:
        found = IPv6Address(int(found))  # which link it came by says nothing of where it is
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    host, _, _ = text.partition(":") if text.count(":") == 1 else (text, "", "")
    return host
