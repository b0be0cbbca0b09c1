"""The one error tree of the suite; engines, services and the gateway raise these.

No grpc and no HTTP here: `interceptors/errors.py` maps the tree to gRPC statuses
and the gateway's table maps it to HTTP, so that an engine stays plain Python.

    AtriumError
    ├── InvalidArgument        a field is wrong, unknown or unsupported (names it)
    │   └── MediaError         an upload is corrupt, too long, or of an unknown format
    ├── TooLarge               a body or an upload is over its limit
    ├── Unauthenticated        no credential, or one that does not hold
    ├── PermissionDenied       a good credential that may not do this
    ├── NotFound               no such model, key, tenant or method
    ├── Conflict               the thing exists already, or is in another state
    ├── QuotaExceeded          a limit of the tenant refuses (names it, says when)
    ├── Overloaded             the service's queue is full (says when to retry)
    ├── DeadlineExceeded       the deadline passed, or can't be met
    ├── Cancelled              the caller left
    ├── Unavailable            a service, the database or a provider can't be reached
    │   └── WeightsError       a model's files can't be had (`weights/errors.py`)
    ├── Unimplemented          known to the wire, not offered by this service
    ├── InternalError          a defect; carries a reference id, never the cause
    └── CatalogueError         the catalogue file does not hold (`catalogue.py`); for the
                               operator at start-up, it never reaches a caller
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class LimitViolation:
    """One limit that refused a request.

    Attributes:
        unit: What is counted, e.g. ``"requests"``.
        window: Length of the window.
        limit: Amount allowed in a window.
        remaining: Amount that was still free, 0 or more.
        reset_time: When the window begins anew, aware UTC.
        scope: What the limit is bound to, e.g. ``"tenant:acme capability:chat"``.
        name: Name of the limit, e.g. ``"tenant:chat:requests:minute"``; may be empty.
    """

    unit: str
    window: timedelta
    limit: int
    remaining: int
    reset_time: datetime
    scope: str
    name: str = ""


class AtriumError(Exception):
    """Base of every error that may reach a caller.

    Attributes:
        reason: Stable machine-readable code in UPPER_SNAKE_CASE; it travels as
            `google.rpc.ErrorInfo.reason` and as `code` in REST bodies.
        message: One sentence for the caller. Holds no internals and no secrets.
        field: Path of the offending request field, or ``None``.
        retry_after: When trying again may help, or ``None`` if it will not.
        metadata: Further machine-readable facts.
    """

    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        field: str | None = None,
        retry_after: timedelta | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.field = field
        self.retry_after = retry_after
        self.metadata: Mapping[str, str] = metadata or {}


class InvalidArgument(AtriumError):
    """A field is wrong, unknown or unsupported; `field` names it."""

    default_reason = "INVALID_ARGUMENT"


class MediaError(InvalidArgument):
    """An upload is corrupt, empty, too long or of an unknown format."""

    default_reason = "INVALID_MEDIA"


class TooLarge(AtriumError):
    """A body or an upload is over its size limit."""

    default_reason = "TOO_LARGE"


class Unauthenticated(AtriumError):
    """No credential was given, or it is forged, expired or revoked."""

    default_reason = "UNAUTHENTICATED"


class PermissionDenied(AtriumError):
    """The credential holds but does not allow this."""

    default_reason = "PERMISSION_DENIED"


class NotFound(AtriumError):
    """The thing named by the request does not exist for this caller."""

    default_reason = "NOT_FOUND"


class Conflict(AtriumError):
    """The thing exists already or is in a state that does not allow this."""

    default_reason = "CONFLICT"


class QuotaExceeded(AtriumError):
    """A limit of the tenant refuses; nothing was reserved.

    Attributes:
        violations: The limits that refused, tightest first; at least one.
    """

    default_reason = "RATE_LIMITED"

    def __init__(
        self,
        message: str,
        *,
        violations: tuple[LimitViolation, ...],
        reason: str | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message, reason=reason, retry_after=retry_after)
        self.violations = violations


class Overloaded(AtriumError):
    """The service has no room in its queue; `retry_after` says when to try again."""

    default_reason = "OVERLOADED"


class DeadlineExceeded(AtriumError):
    """The deadline has passed or can't be met."""

    default_reason = "DEADLINE_EXCEEDED"


class Cancelled(AtriumError):
    """The caller left before the work was done."""

    default_reason = "CANCELLED"


class Unavailable(AtriumError):
    """Something that the request needs can't be reached now."""

    default_reason = "UNAVAILABLE"


class Unimplemented(AtriumError):
    """The wire knows this, this service or engine does not offer it."""

    default_reason = "UNIMPLEMENTED"


class InternalError(AtriumError):
    """A defect of ours. The message holds a reference id, the log holds the cause."""

    default_reason = "INTERNAL"
