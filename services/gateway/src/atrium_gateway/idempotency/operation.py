"""What requests ask of the keys' store, what is kept of a key, and what comes of asking.

`store.py` makes operations; `ordinary.py` and `batch.py` do them, many in one transaction.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from atrium_common.errors import AtriumError
from atrium_gateway.idempotency.domain import Attempt, KeptAnswer
from atrium_gateway.idempotency.recorder import Recorder

INLINE_BYTES: Final = 16 << 10
"""An answer's body up to this size stands in its key's row, a larger one in pieces."""
PENDING, ANSWERED, UNKEPT = "pending", "answered", "unkept"


class Kind(StrEnum):
    """What is asked for a key."""

    CLAIM = "claim"
    ANSWER = "answer"
    FORGO = "forgo"
    RENEW = "renew"
    RELEASE = "release"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operation:
    """What one request asks; `status`, `headers` (JSON) and `body` are an answer's."""

    kind: Kind
    attempt: Attempt
    status: int | None = None
    headers: str | None = None
    body: Recorder | None = None

    @property
    def size(self) -> int:
        """Bytes of the answer."""
        return 0 if self.body is None else self.body.size


Outcome = bool | KeptAnswer | AtriumError
"""Of a claim whether it has the key (True), or what is there; else whether it was held."""
Key = tuple[str, bytes]
"""Tenant and digest."""


class Row(NamedTuple):
    """What is kept of a key, less an answer's body; the fields are the table's columns."""

    tenant: str
    digest: bytes
    fingerprint: bytes
    attempt: str
    request_id: str
    state: str
    until_ms: int
    status: int | None = None
    headers: str | None = None
    size: int = 0


def key_of(attempt: Attempt) -> Key:
    """The key that an attempt is for."""
    return attempt.tenant, attempt.digest


def pending(attempt: Attempt, *, until_ms: int) -> Row:
    """The row of a key whose request runs."""
    names = (attempt.tenant, attempt.digest, attempt.fingerprint, attempt.id, attempt.request_id)
    return Row(*names, PENDING, until_ms)
