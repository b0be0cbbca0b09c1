"""Tells the suite's own calls from tenants' calls by the metadata; called by `edge.py`.

A tenant's token is not read here: admission alone can say whose it is.
"""

import hmac
import math
from collections.abc import Mapping
from dataclasses import dataclass

from atrium_common.errors import InvalidArgument, PermissionDenied, Unauthenticated
from atrium_common.interceptors.metadata import (
    AUTHORIZATION,
    RESERVATION,
    SERVICE,
    TENANT,
    WEIGHT,
)

_BEARER = "bearer "


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as far as the service itself can tell.

    Attributes:
        trusted: Whether the caller holds the service credential.
        tenant: Tenant that a trusted caller names; ``""`` if none.
        token: Bearer token of a caller that is not trusted.
        reservation_id: Reservation that a trusted caller has made already.
        weight: Share in fair scheduling that a trusted caller gives, above 0.
    """

    trusted: bool
    tenant: str = ""
    token: str | None = None
    reservation_id: str | None = None
    weight: float = 1.0


class Authenticator:
    """Checks the suite's shared secret."""

    def __init__(self, service_credential: str | None) -> None:
        """Trusts holders of `service_credential`; with ``None``, nobody."""
        self._secret = service_credential.encode() if service_credential else None

    def identify(self, metadata: Mapping[str, str]) -> Caller:
        """Reads who calls.

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
        return Caller(trusted=False, token=token)


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
