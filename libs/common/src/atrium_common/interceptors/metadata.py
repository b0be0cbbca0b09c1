"""The metadata keys of the suite and a typed way to read what grpc.aio gives.

Used by the interceptors, the admission client and everyone who calls a service.
"""

from collections.abc import Iterable
from typing import Final, cast

AUTHORIZATION: Final = "authorization"
SERVICE: Final = "x-atrium-service"
TENANT: Final = "x-atrium-tenant"
RESERVATION: Final = "x-atrium-reservation"
WEIGHT: Final = "x-atrium-weight"
REQUEST_ID: Final = "x-request-id"
TRACEPARENT: Final = "traceparent"
FORWARDED_FOR: Final = "x-forwarded-for"

Pair = tuple[str, str | bytes]


def pairs(metadata: object) -> tuple[Pair, ...]:
    """Reads grpc metadata, whose classes differ by side and are untyped, as pairs."""
    return tuple(cast(Iterable[Pair], metadata or ()))


def texts(metadata: object) -> dict[str, str]:
    """Reads the text entries; of a key that comes twice, the last."""
    found = cast(Iterable[Pair], metadata or ())
    return {key: value for key, value in found if isinstance(value, str)}
