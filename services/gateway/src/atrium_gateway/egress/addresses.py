"""Which network addresses may be reached; `names.py` asks for every address of a name.

`ipaddress` knows the registries of special addresses in the state of its Python release, so
what matters is written out here: the same holds on every version.
"""

from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_METADATA = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",  # most clouds
            "169.254.170.2",  # containers of AWS
            "168.63.129.16",  # Azure: a public address that only its machines reach
            "100.100.100.200",  # Alibaba
            "192.0.0.192",  # Oracle
            "fd00:ec2::254",  # AWS
            "fd20:ce::254",  # Google
        ),
    )
)
"""Where clouds tell a machine its secrets: never reached, whatever is listed as allowed."""

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_REFUSED_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",  # multicast, reserved, broadcast
        ),
    )
)
"""IANA's special-purpose IPv4 addresses, none of which is a host of the internet."""
_REFUSED_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, Teredo among them
            "2001:db8::/32",
            "2002::/16",  # 6to4
            "3fff::/20",
        ),
    )
)
"""The same of IPv6, inside its global unicast addresses."""


def reachable(address: Address, *, private: Sequence[Network] = ()) -> bool:
    """Whether an address may be connected to: it is public, or the operator allows it.

    Args:
        address: What a name resolved to.
        private: Networks that are not public and allowed all the same.
    """
    plain = _plain(address)
    if plain in _METADATA:
        return False
    if any(plain in network for network in private if network.version == plain.version):
        return True
    if not plain.is_global or plain.is_multicast:
        return False
    if isinstance(plain, IPv4Address):
        return not any(plain in network for network in _REFUSED_4)
    return plain in _GLOBAL_UNICAST and not any(plain in network for network in _REFUSED_6)


def read_network(text: str) -> Network:
    """Reads a network such as ``10.1.0.0/16`` or a single address; raises `ValueError`."""
    return ip_network(text)


def _plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 form of it leads to; other addresses as they are.

    Mapped ones are connected to over IPv4 by the system, NAT64 ones by the network's
    translator. Compatible ones, 6to4 and Teredo are refused as a whole.
    """
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address
