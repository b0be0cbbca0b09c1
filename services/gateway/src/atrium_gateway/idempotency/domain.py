"""What the parts of `idempotency/` speak of: attempts, kept answers, bounds and refusals."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from atrium_common.errors import Conflict, InvalidArgument

MAX_KEY = 255
"""Longest key in characters."""
_LEAST_WAIT = timedelta(seconds=1)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is kept, and for how long.

    Attributes:
        answer_bytes: Largest answer that is kept.
        tenant_bytes: Most bytes of answers that are kept of a tenant.
        tenant_keys: Most keys of a tenant at a time, those of running requests included.
        lease: How long a key stays with a request whose process says nothing more.
        kept: How long a key lives after its answer.
    """

    answer_bytes: int = 8 << 20
    tenant_bytes: int = 256 << 20
    tenant_keys: int = 100_000
    lease: timedelta = timedelta(seconds=60)
    kept: timedelta = timedelta(hours=24)

    @property
    def lease_ms(self) -> int:
        """Milliseconds of `lease`."""
        return self.lease // _MILLISECOND

    @property
    def kept_ms(self) -> int:
        """Milliseconds of `kept`."""
        return self.kept // _MILLISECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try of a request with a key; it holds the key until it is closed or dies.

    Attributes:
        tenant: Whose key it is.
        digest: `key_digest` of the key.
        fingerprint: SHA-256 of the request, 32 bytes.
        id: This try's own; only its holder may close it.
        request_id: Of the request, for logs.
    """

    tenant: str
    digest: bytes
    fingerprint: bytes
    id: str
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """An answer that can be given again.

    Attributes:
        tenant: Whose it is.
        digest: `key_digest` of its key.
        attempt: Id of the try that gave it.
        request_id: Of the request that ran.
        status: HTTP status.
        headers: Names and values, in their order.
        size: Bytes of the body.
    """

    tenant: str
    digest: bytes
    attempt: str
    request_id: str
    status: int
    headers: tuple[tuple[str, str], ...]
    size: int


def key_digest(method: str, path: str, key: bytes) -> bytes:
    """SHA-256 that a key is kept under: the same key on another path is another one."""
    parts = (method.encode(), path.encode(), key)
    return hashlib.sha256(b"".join(length_prefixed(parts))).digest()


def length_prefixed(parts: Iterable[bytes]) -> Iterable[bytes]:
    """Gives parts each behind its length, so that no two lists of parts look the same."""
    for part in parts:
        yield len(part).to_bytes(8, "big")
        yield part


def invalid_key() -> InvalidArgument:
    """The key is no key."""
    return InvalidArgument(
        f"'Idempotency-Key' is given once and has 1 to {MAX_KEY} visible ASCII characters.",
        reason="INVALID_IDEMPOTENCY_KEY",
        field="Idempotency-Key",
    )


def key_reused() -> InvalidArgument:
    """The key came before, with another request."""
    return InvalidArgument(
        "This 'Idempotency-Key' was used for another request; take a new key for a new request.",
        reason="IDEMPOTENCY_KEY_REUSED",
        field="Idempotency-Key",
    )


def in_flight(left: timedelta) -> Conflict:
    """The first request with the key still runs; `left` is what its lease has left."""
    return Conflict(
        "The first request with this 'Idempotency-Key' is still running.",
        reason="IDEMPOTENCY_REQUEST_IN_FLIGHT",
        field="Idempotency-Key",
        retry_after=min(left, _LEAST_WAIT),
    )


def not_kept() -> Conflict:
    """The request ran, and its answer is not there any more: it does not run twice."""
    return Conflict(
        "The request with this 'Idempotency-Key' has run, and its answer was not kept.",
        reason="IDEMPOTENCY_ANSWER_NOT_KEPT",
        field="Idempotency-Key",
    )


def keys_exhausted(most: int) -> Conflict:
    """The tenant has as many keys as it may have."""
    return Conflict(
        f"There are {most} idempotency keys of the last day; no more are kept at a time. "
        "Nothing was done: send the request without a key, or later.",
        reason="IDEMPOTENCY_KEYS_EXHAUSTED",
        field="Idempotency-Key",
    )
