"""What may be fetched: made of the operator's settings, kept to by the fetcher."""

from collections.abc import Sequence
from dataclasses import dataclass

from atrium_gateway.egress.addresses import Network
from atrium_gateway.egress.targets import HostRule


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRules:
    """What may be fetched, and how much it may cost.

    Attributes:
        hosts: Hosts that are allowed.
        private: Networks that are not public and allowed all the same.
        max_bytes: Most bytes of one file.
        max_redirects: Most redirects that are followed; each is checked like the first.
        seconds: Longest time for one file, redirects included.
        connect_seconds: Longest time for one connection to stand.
        concurrency: Files that are fetched at once; others wait, within their time.
    """

    hosts: Sequence[HostRule]
    private: Sequence[Network] = ()
    max_bytes: int = 32 << 20
    max_redirects: int = 3
    seconds: float = 20.0
    connect_seconds: float = 5.0
    concurrency: int = 8
