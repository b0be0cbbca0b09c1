"""Tells the suite's own calls from tenants' calls by the metadata; called by `edge.py`.

A tenant's token is not read here: admission alone can say whose it is.
"""

import hmac
import math
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from atrium_common.errors import InvalidArgument, PermissionDenied, Unauthenticated
from atrium_common.interceptors.metadata import (
    AUTHORIZATION,
    FORWARDED_FOR,
    RESERVATION,
    SERVICE,
    TENANT,
    WEIGHT,
)

_BEARER = "bearer "
_MAX_FORWARDED = 2048


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as far as the service itself can tell.

    Attributes:
        trusted: Whether the caller holds the service credential.
        tenant: Tenant that a trusted caller names; ``""`` if none.
        token: Bearer token of a caller that is not trusted.
        reservation_id: Reservation that a trusted caller has made already.
        weight: Share in fair scheduling that a trusted caller gives, above 0.
        address: Address of the connection of one that is not trusted; ``""`` if unknown.
        forwarded_for: What proxies say of it, as it came.
    """

    trusted: bool
    tenant: str = ""
    token: str | None = None
    reservation_id: str | None = None
    weight: float = 1.0
    address: str = ""
    forwarded_for: str = ""


class Authenticator:
    """Checks the suite's shared secret."""

    def __init__(self, service_credential: str | None) -> None:
        """Trusts holders of `service_credential`; with ``None``, nobody."""
        self._secret = service_credential.encode() if service_credential else None

    def identify(self, metadata: Mapping[str, str], *, peer: str = "") -> Caller:
        """Reads who calls.

        Args:
            metadata: Of the call.
            peer: The connection's other end, as gRPC writes it.

        Raises:
            Unauthenticated: No credential, or a wrong service credential.
            PermissionDenied: A tenant sends what only the suite may send.
            InvalidArgument: The weight is not a number above 0.
        """
        presented = metadata.get(SERVICE)
        if presented is not None:
            secret = self._secret
            if secret is None or not hmac.compare_digest(presented.encode(), secret):
                raise Unauthenticated("The service credential does not hold.")
            return Caller(
                trusted=True,
                tenant=metadata.get(TENANT, ""),
                reservation_id=metadata.get(RESERVATION) or None,
                weight=_weight(metadata.get(WEIGHT)),
            )
        for key in (TENANT, RESERVATION, WEIGHT):
            if key in metadata:
                raise PermissionDenied(f"The metadata {key} needs the service credential.")
        authorization = metadata.get(AUTHORIZATION, "")
        token = authorization[len(_BEARER) :].strip()
        if authorization[: len(_BEARER)].lower() != _BEARER or not token:
            raise Unauthenticated("Send the metadata authorization: Bearer <key or token>.")
        return Caller(
            trusted=False,
            token=token,
            address=_address(peer),
            forwarded_for=metadata.get(FORWARDED_FOR, "")[-_MAX_FORWARDED:],
        )


def _address(peer: str) -> str:
    """The address in ``ipv4:10.0.0.1:5000`` or ``ipv6:%5B::1%5D:5000``; ``""`` of others."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return ""
    return rest.rpartition(":")[0].strip("[]")


def _weight(text: str | None) -> float:
    if text is None:
        return 1.0
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not (0 < weight < math.inf):
        raise InvalidArgument(f"{WEIGHT} is a number above 0.", field=WEIGHT)
    return weight
